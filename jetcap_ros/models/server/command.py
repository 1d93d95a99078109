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

"""The command of a llama-server of our own, with little memory, and the memory it will need."""

import math
import os
from pathlib import Path
import shlex
import shutil
import sys

from .errors import printable, ServerError, ServerOptionError
from .gguf import GgufFile, read_gguf
from ..errors import CheckpointError

CONTEXT, BATCH = 2048, 128  # tokens
CONTEXT_FLAGS = ('-c', '--ctx-size')
# The program, its libraries and what it keeps of the vocabulary.
BASE_MB = 60
MB = 1 << 20

Flag = tuple[tuple[str, ...], tuple[str, ...]]  # names of one flag, and its values


def llama_command(binary: str, model: str, projector: str) -> list[str]:
    """
    Return the command that serves a model with its projector.

    :param binary: path or name of llama-server; '' looks for it on PATH and beside this Python.
    """
    return [binary or 'llama-server', '-m', model, '--mmproj', projector]


def split_command(text: str) -> list[str]:
    """
    Return the words of a command, quotes understood as a shell does, and nothing else.

    :raises ServerOptionError: if there are none, or a quote stays open.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ServerOptionError(f'server_command {printable(text, 100)}: {error}') from error
    if not words:
        raise ServerOptionError('server_command holds no program')
    return words


def find_program(name: str) -> str:
    """
    Return the path of a program.

    :raises ServerError: if there is none; says what to do.
    """
    path = os.pathsep.join([os.environ.get('PATH', os.defpath), os.path.dirname(sys.executable)])
    found = shutil.which(os.path.expanduser(name), path=path)
    if found is None:
        raise ServerError(
            f'{printable(name)}: no such program on PATH: install llama.cpp, or say where it is '
            'with server_binary or server_command')
    return found


def gguf_files(command: list[str]) -> list[GgufFile]:
    """
    Return the model and the projector that a command names, as far as it names files.

    :raises CheckpointError: if one is missing, damaged or in the other's place.
    """
    files = []
    for option, word in zip(['', *command], command):
        if not word.endswith('.gguf'):
            continue
        found = read_gguf(word)
        is_projector = found.architecture == 'clip'
        if option in ('-m', '--model') and is_projector:
            raise CheckpointError(f'{word}: is a projector, not a model: give it as projector')
        if option in ('-mm', '--mmproj') and not is_projector:
            raise CheckpointError(f'{word}: is a model, not a projector: give it as checkpoint')
        if is_projector and not found.metadata.get('clip.has_vision_encoder'):
            raise CheckpointError(f'{word}: is a projector for sound, not for pictures')
        files.append(found)
    return files


def little_memory_flags(image_size: int, num_threads: int) -> list[Flag]:
    """
    Return flags of llama-server for little memory: their names, of which the first is used, values.

    :param image_size: of pictures, in pixels; decides how many tokens one may become.
    :param num_threads: 0: all cores but one.
    """
    tokens = math.ceil(image_size / 28) ** 2  # a token for 28 x 28 pixels, of models that adapt
    return [
        # Its threads spin where they meet: beside a busy robot one core less is far faster than
        # one too many.
        (('-t', '--threads'), (str(num_threads or max(1, len(os.sched_getaffinity(0)) - 1)),)),
        (CONTEXT_FLAGS, (str(CONTEXT),)),
        (('-np', '--parallel'), ('1',)),
        (('-b', '--batch-size'), (str(BATCH),)),
        (('-ub', '--ubatch-size'), (str(BATCH),)),
        (('--cache-ram', '-cram'), ('0',)),
        (('--image-max-tokens',), (str(tokens),)),
        (('--no-warmup', '--warmup'), ()),
        (('--no-ui', '--no-webui', '--ui', '--webui'), ())]


def with_little_memory(command: list[str], socket: Path, flags: list[Flag]) -> list[str]:
    """Return a command of llama-server with what it does not say itself: where to listen, flags."""
    given = set(command)
    if {'--host', '--port'} & given:
        raise ServerOptionError(
            'server_command says where the server listens: say it in server_url too, or leave '
            'out --host and --port for a socket that only this user can reach')
    words = [*command, '--host', str(socket)]
    for names, values in flags:
        if not given & set(names):
            words += [names[0], *values]
    return words


def need_mb(files: list[GgufFile], command: list[str]) -> float:
    """
    Return the memory that a command of llama-server needs for a model and its projector, in MB.

    The files, the keys and values of the context, and what computing the text and a picture takes,
    from the files' own figures.
    """
    need = float(BASE_MB * MB)
    for file in files:
        need += file.size
        if file.architecture == 'clip':
            need += _picture_bytes(file)
        else:
            need += _context_bytes(file, command)
    return need / MB


def _context_bytes(model: GgufFile, command: list[str]) -> float:
    """Return the bytes of the context (16 bits a number), and of computing a batch (32)."""
    def number(key: str, default: float = 0) -> float:
        return model.number(f'{model.architecture}.{key}', default)

    width, heads = number('embedding_length'), number('attention.head_count', 1)
    layers = number('block_count')
    kv_heads = number('attention.head_count_kv', heads)
    if not isinstance(model.metadata.get(f'{model.architecture}.attention.head_count_kv'), list):
        kv_heads *= layers  # one number for all; a list has one for each
    size = width / max(heads, 1)
    keys_and_values = number('attention.key_length', size) + number('attention.value_length', size)
    context = next((
        int(value) for flag, value in zip(command, command[1:])
        if flag in CONTEXT_FLAGS and value.isdecimal()), CONTEXT)
    context = context or int(number('context_length'))  # 0 is as much as the model knows
    vocabulary = model.lengths.get('tokenizer.ggml.tokens', 0)
    batch = BATCH * (vocabulary + 4 * width + 2 * number('feed_forward_length'))
    return context * kv_heads * keys_and_values * 2 + batch * 4


def _picture_bytes(projector: GgufFile) -> float:
    """Return the bytes that computing a picture takes: its patches, and what each sees of each."""
    def number(key: str) -> float:
        return projector.number(f'clip.vision.{key}')

    patches = (number('image_size') / max(number('patch_size'), 1)) ** 2
    each = 4 * number('embedding_length') + 2 * number('feed_forward_length')
    return patches * (each + number('attention.head_count') * patches) * 4
