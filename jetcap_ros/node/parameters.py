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

"""The parameters of the captioner node: one table, from which they are declared and checked."""

from dataclasses import dataclass
import json
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import (
    InvalidParameterTypeException, InvalidParameterValueException, InvalidTopicNameException)
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.validate_topic_name import validate_topic_name

from .bond import DISABLE_PARAMETER as BOND_PARAMETER
from .parameter_files import unknown_parameters
from ..engine.settings import (
    DEFAULT_PROMPT, FALLBACKS, MAX_BEAM_SIZE, MAX_LENGTH, MAX_PROMPT, MODELS, OF_THE_WORKER,
    RUNTIMES, SERVER_IMAGE_SIZES)
from ..images.still import STILL_THRESHOLD


@dataclass(frozen=True)
class ParameterSpec:
    """
    One parameter; `live` ones can change at any time, others only while unconfigured.

    Those of the worker can change at any time too: another one is loaded.
    Those that are `read_only` are set when the node starts and never after, since they decide
    which programs run and where pictures go: whoever reaches the node's services can set the rest.
    """

    name: str
    default: Any
    description: str
    limits: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    live: bool = False
    read_only: bool = False

    @property
    def swaps(self) -> bool:
        """Say whether another value means another worker."""
        return self.name in OF_THE_WORKER


PARAMETERS = (
    ParameterSpec('model', 'mobilenet',
                  "Model to load: a vision-language model's server, the full model (torch) or the "
                  'simple one.', choices=MODELS),
    ParameterSpec('fallback', 'simple',
                  'What takes over on lack of memory, a missing library, a crash or a hang: the '
                  'full model and then the simple one, the simple one, or none, and configure '
                  'fails.', choices=FALLBACKS),
    ParameterSpec('checkpoint', '',
                  'Path of a packed file or a .pth; empty: the shipped one. With projector, of the '
                  "server's GGUF file."),
    ParameterSpec('checkpoint_sha256', '',
                  'SHA-256 the checkpoint must have, in hexadecimal; empty: any.'),
    ParameterSpec('quantize', 'int8',
                  'Weights of the full model; without an int8 engine in torch: a warning and none.',
                  choices=('int8', 'none')),
    ParameterSpec('device', 'cpu', 'Where the full model runs.', choices=('cpu', 'cuda', 'auto')),
    ParameterSpec('runtime', 'auto',
                  'What the simple model runs in; auto: the fastest here of what is installed.',
                  choices=RUNTIMES),
    ParameterSpec('min_available_memory_mb', 800.0,
                  'Memory that must be available before anything of the full model is imported, '
                  'in MB.', (0.0, 1048576.0), live=True),
    ParameterSpec('reserve_memory_mb', 150.0,
                  'Memory that must stay available after each stage, in MB; below it at run time '
                  'the full model gives way to the simple one.', (0.0, 1048576.0), live=True),
    ParameterSpec('configure_timeout_s', 120.0,
                  'Loading that takes longer counts as a crash, in seconds.', (1.0, 3600.0),
                  live=True),
    ParameterSpec('inference_timeout_s', 10.0,
                  'A caption that takes longer counts as a crash, in seconds.', (0.1, 3600.0),
                  live=True),
    ParameterSpec('recover', True,
                  'Try the model again, with growing delays, after it was replaced or lost.',
                  live=True),
    ParameterSpec('sleep_after_s', 0.0,
                  'Without a caption asked for so long, in seconds, the memory of the model is '
                  'given back until one is; 0: never.', (0.0, 86400.0), live=True),
    ParameterSpec('num_threads', 0, 'Threads of the model; 0: all cores.', (0, 1024)),
    ParameterSpec('mode', 'continuous',
                  'Caption frames as they come, or only when ~/caption_now is called.',
                  choices=('continuous', 'on_demand'), live=True),
    ParameterSpec('max_rate_hz', 2.0,
                  'Captions per second of each camera, at most; 0: as fast as the model.',
                  (0.0, 1000.0), live=True),
    ParameterSpec('lazy', True,
                  'Caption, and in the end subscribe to, only cameras whose captions somebody '
                  'subscribes to; ~/caption_now works all the same.', live=True),
    ParameterSpec('still_threshold', STILL_THRESHOLD,
                  'A frame that differs less from the last captioned one, in mean grey levels of '
                  'a coarse grid, gets the same caption again without asking the model; 0: none '
                  'does.', (0.0, 255.0), live=True),
    ParameterSpec('beam_size', 5, 'Beams of the search; 1: greedy.', (1, MAX_BEAM_SIZE),
                  live=True),
    ParameterSpec('max_length', 20, 'Longest caption, in words.', (1, MAX_LENGTH), live=True),
    ParameterSpec('prompt', DEFAULT_PROMPT,
                  'What the server is asked about each picture; ~/ask answers it for the newest.',
                  live=True),
    ParameterSpec('server_url', '',
                  'Server to ask: http://HOST:PORT, https://HOST or unix:PATH, as Ollama, vLLM and '
                  'llama-server have it. Pictures are sent there.', read_only=True),
    ParameterSpec('server_command', '',
                  'Command of a server that is started and ended with the model, without a shell: '
                  'llama-server -m MODEL --mmproj PROJECTOR. With server_url, any other that '
                  'listens there.', read_only=True),
    ParameterSpec('server_binary', '',
                  'Path of llama-server, for checkpoint and projector; empty: the one on PATH.',
                  read_only=True),
    ParameterSpec('server_model', '',
                  'Name of the model, where the server has several.', read_only=True),
    ParameterSpec('projector', '',
                  'GGUF file of the projector (mmproj) of the model in checkpoint; llama-server is '
                  'started with both.', read_only=True),
    ParameterSpec('server_image_size', 384,
                  'Longer side of the JPEG that the server is sent, at most, in pixels.',
                  SERVER_IMAGE_SIZES),
    ParameterSpec('max_frame_age_s', 0.0,
                  'Frames whose stamp is older than this are dropped, in seconds; 0: none are. '
                  'Needs clocks that agree.', (0.0, 3600.0), live=True),
    ParameterSpec('publish_unchanged', True,
                  'Publish ~/caption again when the sentence is the same as before.', live=True),
    ParameterSpec('publish_image', False,
                  'Publish ~/image_captioned while somebody subscribes to it.', live=True),
    ParameterSpec('draw_attention', False,
                  'Show in ~/image_captioned where the words looked.', live=True),
    ParameterSpec('image_topics', ['image_raw'], 'Topics of the cameras; can be remapped.'),
    ParameterSpec('camera_names', [''],
                  'Names for the topics of several cameras, in the same order; empty: from the '
                  "topics' namespaces."),
    ParameterSpec('image_transport', 'raw',
                  'raw: Image on the topic; compressed: CompressedImage on <topic>/compressed.',
                  choices=('raw', 'compressed')),
    ParameterSpec('image_reliability', 'best_effort',
                  'QoS reliability of the image subscriptions; best_effort matches every camera.',
                  choices=('best_effort', 'reliable')),
    ParameterSpec('bond', 'auto',
                  'Bond with a lifecycle manager while active: auto where bondpy is installed.',
                  choices=('auto', 'required', 'none')),
)
SPECS: dict[str, ParameterSpec] = {spec.name: spec for spec in PARAMETERS}


class ParameterError(ValueError):
    """A parameter that was set to something absurd at start; the message says what to do."""


def describe(spec: ParameterSpec) -> ParameterDescriptor:
    """Return the descriptor of a parameter, as `ros2 param describe` shows it."""
    descriptor = ParameterDescriptor(
        name=spec.name, description=spec.description, read_only=spec.read_only)
    if spec.choices:
        descriptor.additional_constraints = 'one of: ' + ', '.join(spec.choices)
    if not spec.live:
        note = (
            'set when the node starts, never after' if spec.read_only
            else 'another value has another model loaded, until then the one there is captions'
            if spec.swaps else 'changes only while the node is unconfigured')
        descriptor.additional_constraints = '; '.join(
            filter(None, (descriptor.additional_constraints, note)))
    if spec.limits:
        low, high = spec.limits
        if isinstance(spec.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))]
        else:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return descriptor


def declare_parameters(node: Node) -> None:
    """
    Declare all parameters.

    :raises ParameterError: for a value from a file or the command line that cannot be.
    """
    overrides = node._parameter_overrides
    for spec in PARAMETERS:
        given = overrides.get(spec.name)
        empty = given is not None and given.type_ == Parameter.Type.NOT_SET  # [] or ~ in a file
        if empty and spec.default != ['']:
            raise ParameterError(
                f'parameter {spec.name} has no value, expected one as its default, '
                f'{json.dumps(spec.default)}')
        try:
            node.declare_parameter(
                spec.name, spec.default, describe(spec), ignore_override=empty)
        except InvalidParameterTypeException as error:
            # `max_rate_hz: 2` in a file is a whole number, and plainly means 2.0.
            value = overrides[spec.name].value
            if not isinstance(spec.default, float) or type(value) is not int:
                raise ParameterError(
                    f'parameter {spec.name}: {value!r} is not of the type of its default, '
                    f'{spec.default!r}') from error
            node.declare_parameter(spec.name, spec.default, describe(spec), ignore_override=True)
            result, = node.set_parameters([Parameter(spec.name, value=float(value))])
            if not result.successful:
                raise ParameterError(f'parameter {spec.name}: {result.reason}') from error
        except InvalidParameterValueException as error:
            raise ParameterError(f'parameter {spec.name}: {error}') from error
        text = check(node.get_parameter(spec.name))
        if text:
            raise ParameterError(text)
    unknown = unknown_parameters(
        [name for name in overrides if not node.has_parameter(name) and not _is_later(name)],
        SPECS)
    if unknown:
        node.get_logger().warning(unknown)


def _is_later(name: str) -> bool:
    """Say whether a parameter is one that rclpy or bondpy declares while the node runs."""
    return name.startswith('qos_overrides.') or name == BOND_PARAMETER


def check(parameter: Parameter[Any]) -> str:
    """Return what is wrong with a value, '' if nothing is."""
    spec = SPECS.get(parameter.name)
    if spec is None:
        return ''
    value = parameter.value
    if spec.choices and value not in spec.choices:
        return f'parameter {spec.name}: {value!r} is none of {", ".join(spec.choices)}'
    if isinstance(spec.default, float) and spec.limits \
            and not spec.limits[0] <= value <= spec.limits[1]:
        return f'parameter {spec.name}: {value} is not within {spec.limits}'
    if spec.name == 'checkpoint_sha256' and value and (
            len(value) != 64 or set(value.lower()) - set('0123456789abcdef')):
        return 'parameter checkpoint_sha256: expected 64 hexadecimal digits'
    if spec.name == 'prompt' and not 0 < len(value.strip()) <= MAX_PROMPT:
        return f'parameter prompt: expected a question of at most {MAX_PROMPT} characters'
    if spec.name == 'image_topics' and (not value or len(set(value)) != len(value)):
        return 'parameter image_topics: expected one topic or more, each once'
    if spec.name in ('image_topics', 'camera_names'):
        prefix = '~/' if spec.name == 'camera_names' else ''  # as part of the outputs' topics
        for name in value:
            rule = _broken_rule(prefix + name) if name or not prefix else ''
            if rule:
                return f'parameter {spec.name}: {name!r}: {rule}'
    return ''


def _broken_rule(topic: str) -> str:
    """Return which of ROS's rules for names a topic breaks, '' if none."""
    try:
        validate_topic_name(topic)
    except InvalidTopicNameException as error:
        first_line = str(error).partition('\n')[0]
        return first_line.removeprefix('Invalid topic name: ').rstrip(':')
    return ''


def document() -> str:
    """Return docs/parameters.md: `python -m jetcap_ros.node.parameters > docs/parameters.md`."""
    lines = [
        '# Parameters of the captioner node', '',
        'Written by `python -m jetcap_ros.node.parameters`; `ros2 param describe` says the same.',
        'Live parameters can change in any state, the others while the node is unconfigured.',
        'Where it says "swap", another value has another model loaded, in any state: beside the',
        'old one if both fit, which captions until the new one is ready, and stays if that cannot',
        'be loaded. Several set by one call are one swap. Those marked "start" are set when the',
        'node starts, and never after.', '',
        '| parameter | default | values | live | meaning |', '| --- | --- | --- | --- | --- |']
    for spec in PARAMETERS:
        values = ', '.join(f'`{choice}`' for choice in spec.choices)
        if spec.limits:
            values = f'{spec.limits[0]:g} to {spec.limits[1]:g}'
        live = (
            'start' if spec.read_only else 'yes' if spec.live else 'swap' if spec.swaps else '')
        default = f'`{json.dumps(spec.default)}`' if spec.default not in ('', ['']) else ''
        lines.append(
            f'| `{spec.name}` | {default} | {values} | {live} '
            f'| {spec.description} |')
    return '\n'.join(lines) + '\n'


if __name__ == '__main__':
    print(document(), end='')
