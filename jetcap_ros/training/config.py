# Copyright 2026 jetcap_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""What a training run is made of: read from YAML, written beside its results."""

from collections.abc import Mapping, Sequence
import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml

from ..errors import UserError
from ..images.limits import check_input_size, SIZE
from ..models.architectures import ENCODERS

Settings = TypeVar('Settings', 'Stage', 'TrainingConfig')

STAGES = ('text', 'frozen', 'fine-tune', 'self-critical', 'words')


@dataclass
class Stage:
    """One stage of training; each goes on from the best weights of the stage before it."""

    name: str
    epochs: int = 10
    batch_pictures: int = 32
    views: int = 4  # of each picture: itself, mirrored, parts of it; 0: a new one each epoch
    learning_rate: float = 1e-3  # of the decoder; rises in warm-up, then falls as a cosine
    final_rate: float = 0.02  # where the cosine ends, as a part of learning_rate
    encoder_rate: float = 1e-4  # of the encoder's blocks
    from_block: int | None = None  # the first block that is trained; None: none is
    warm_up: float = 0.05  # part of the steps
    weight_decay: float = 0.01
    dropout: float = 0.4
    feature_dropout: float = 0.1
    label_smoothing: float = 0.1
    distillation: float = 0.0  # part of the teachers' probabilities in the targets; views: 0
    average: float = 0.999  # decay of the moving average of the weights, which is what is kept
    runs: int = 1  # from the same weights, with the seeds from `seed` on, averaged at the end
    pull_back: float = 0.0  # part of the weights before the stage in those it leaves
    likelihood_weight: float = 0.0  # of the words' cross-entropy beside reward (self-critical)
    samples: int = 5  # captions drawn a picture (self-critical)
    bleu_weight: float = 0.0  # of sentence BLEU-4 beside CIDEr-D in the reward (self-critical)
    meteor_weight: float = 0.0  # of METEOR's exact matches in the reward (self-critical)
    repeat_weight: float = 0.0  # taken from the reward for a word said twice (self-critical)
    invented_weight: float = 0.0  # and for one that nobody said of the picture (self-critical)
    min_references: int = 1  # of pictures with fewer captions, likelihood (self-critical)
    words_weight: float = 0.0  # of the word detector's loss beside the other (not in words)
    words_dim: int = 512  # of the word detector's hidden layer

    @property
    def kind(self) -> str:
        """Return one of STAGES; a stage that comes again is called 'fine-tune 2', say."""
        return self.name.partition(' ')[0]


STAGE_DEFAULTS: dict[str, dict[str, Any]] = {
    'text': {'views': 1, 'epochs': 2, 'batch_pictures': 64},
    'frozen': {'views': 2},
    'fine-tune': {'learning_rate': 5e-4, 'from_block': 7},
    'self-critical': {'learning_rate': 1e-4, 'label_smoothing': 0.0, 'dropout': 0.1},
    'words': {'batch_pictures': 128, 'dropout': 0.5, 'feature_dropout': 0.0, 'weight_decay': 0.1},
}


@dataclass
class TrainingConfig:
    """A whole run."""

    encoder: str = 'mobilenet_v2'
    embed_dim: int = 256
    decoder_dim: int = 512
    attention_dim: int = 256
    image_size: int | None = None  # pixels, of both sides; None: of the initial checkpoint, or 224
    min_words: int = 3  # shorter captions are dropped
    max_words: int = 20  # longer ones are cut
    min_count: int = 5  # rarer words are <unk>
    captions_per_picture: int = 5  # read at once; drawn again each epoch
    source_weights: dict[str, float] = field(default_factory=dict)  # pictures' part of an epoch
    seed: int = 1
    bfloat16: bool = True  # matrix products in training; faster where the processor has it
    stages: list[Stage] = field(default_factory=lambda: [make_stage('frozen')])


def make_stage(name: str, settings: Mapping[str, Any] | None = None) -> Stage:
    """Return a stage by name with its defaults and these settings, or raise UserError."""
    stage = Stage(name)
    if stage.kind not in STAGES:
        raise UserError(
            f'unknown stage {name!r}: stages are {", ".join(STAGES)}; one that comes again has a '
            "blank and a number after its name, 'fine-tune 2'")
    return _fill(Stage, {'name': name, **STAGE_DEFAULTS[stage.kind], **(settings or {})}, name)


def check_stages(stages: Sequence[Stage]) -> None:
    """Raise UserError for stages whose order or settings would undo what they learn."""
    if any(stage.kind == 'words' for stage in stages[:-1]):
        raise UserError('words: the last stage, since what it learns fits the encoder it saw')
    for stage in stages:
        if stage.kind == 'words' and (
                stage.runs > 1 or stage.pull_back or stage.from_block is not None):
            raise UserError('words: takes no runs, pull_back or from_block')


def read_config(path: str | None, overrides: Sequence[str] = ()) -> TrainingConfig:
    """
    Return the configuration of a YAML file.

    :param overrides: `name=value` or `stage.name=value`, which win.
    :raises UserError: names what is unknown or of the wrong type.
    """
    document: dict[str, Any] = {}
    if path:
        try:
            with open(path, encoding='utf-8') as file:
                document = yaml.safe_load(file) or {}
        except OSError as error:
            raise UserError(f'{path}: {error.strerror}') from None
        except yaml.YAMLError as error:
            raise UserError(f'{path}: not YAML ({error})') from None
        if not isinstance(document, dict):
            raise UserError(f'{path}: expected names and values')
    stages = document.pop('stages', {'frozen': {}})
    if not isinstance(stages, dict) or not stages:
        raise UserError('stages: expected a map of stages to their settings')
    stages = {name: dict(settings or {}) for name, settings in stages.items()}
    for override in overrides:
        name, equals, value = override.partition('=')
        if not equals:
            raise UserError(f'{override!r}: expected name=value or stage.name=value')
        stage, dot, setting = name.partition('.')
        if not dot:
            document[name] = yaml.safe_load(value)
        elif stage in stages:
            stages[stage][setting] = yaml.safe_load(value)
        else:
            raise UserError(f'{override!r}: this run has no stage {stage!r}')
    config = _fill(TrainingConfig, document, path or 'configuration')
    config.stages = [make_stage(name, settings) for name, settings in stages.items()]
    check_stages(config.stages)
    if config.encoder not in ENCODERS:
        raise UserError(f'unknown encoder {config.encoder!r}: {", ".join(ENCODERS)}')
    try:
        check_input_size(SIZE if config.image_size is None else config.image_size)
    except ValueError as error:
        raise UserError(f'{path or "configuration"}: {error}') from None
    return config


def write_config(config: TrainingConfig, path: str) -> None:
    """Write a configuration so that `read_config` gives it again."""
    document = dataclasses.asdict(config)
    document['stages'] = {stage.pop('name'): stage for stage in document['stages']}
    with open(path, 'w', encoding='utf-8') as file:
        yaml.safe_dump(document, file, sort_keys=False)


def _fill(kind: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    known = {f.name: f for f in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in known or name == 'stages':
            names = ', '.join(n for n in known if n not in ('name', 'stages'))
            raise UserError(f'{where}: unknown setting {name!r}; known are {names}')
        declared: Any = known[name].type
        if value is None and declared == int | None:
            continue
        if name == 'source_weights':
            if not isinstance(value, dict) or not all(
                    isinstance(w, (int, float)) and w >= 0 for w in value.values()):
                raise UserError(f'{where}: source_weights: expected sources and numbers from 0 on')
            continue
        expected: dict[Any, Any] = {
            float: (int, float), int: int, str: str, bool: bool, int | None: int}
        if not isinstance(value, expected[declared]) or (
                isinstance(value, bool) and declared is not bool):
            raise UserError(f'{where}: {name} is {value!r}, expected {declared.__name__}')
        if not isinstance(value, str) and value < 0:
            raise UserError(f'{where}: {name} is {value}, expected 0 or more')
    return kind(**values)
