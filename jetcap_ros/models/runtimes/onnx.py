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

"""The simple model in ONNX Runtime: float32 convolutions, int8 products."""

import os
from typing import Any, BinaryIO

import numpy as np
import onnxruntime

from .runtime import Encoder, Runtime
from ..architectures import Block
from ..decoder import Product
from ..encoder_graph import encoder_graph, Read
from ..int8_input import joined, LEVELS, two_parts
from ..onnx_graph import integer_graph, linear_graph
from ..weight import Weight
from ...memory.memory_utils import trim_heap


class _Sessions:
    """Builds sessions that hold little memory."""

    def __init__(self, num_threads: int) -> None:
        self._num_threads = num_threads or len(os.sched_getaffinity(0))

    def load(self, graph: BinaryIO, num_threads: int = 1) -> onnxruntime.InferenceSession:
        """
        Return the session of a file, which is closed; RuntimeError if it cannot be built.

        :param num_threads: of its own; a product is done before those of others are awake.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3  # errors
        # Threads that wait for more would take half a core from what NumPy does next.
        options.add_session_config_entry('session.force_spinning_stop', '1')
        try:
            with graph:
                return onnxruntime.InferenceSession(
                    f'/proc/self/fd/{graph.fileno()}', options,
                    providers=['CPUExecutionProvider'])
        except Exception as error:  # its own classes, one for each kind of failure
            raise RuntimeError(
                f'ONNX Runtime {onnxruntime.__version__} cannot build the model: {error}'
            ) from error
        finally:
            trim_heap()  # what reading took is several times what stays

    def encoder(self, blocks: list[Block], read: Read, size: int) -> Encoder:
        """Return an encoder."""
        session = self.load(encoder_graph(blocks, read, size), self._num_threads)
        return lambda image: _run(session, image=image)

    def image_product(self, weight: Weight, bias: np.ndarray) -> Product:
        """Return a product of many rows."""
        return self.product(weight, bias, self._num_threads)

    def product(self, weight: Weight, bias: np.ndarray, num_threads: int = 1) -> Product:
        """Return a product; int8 weights meet their input in two parts, as in torch."""
        if weight.scale is None:
            session = self.load(linear_graph(weight, bias), num_threads)
            return lambda x: _run(session, x=x)
        session = self.load(integer_graph(weight.values, LEVELS), num_threads)
        scale = weight.scale

        def product(x: np.ndarray) -> np.ndarray:
            parts, step = two_parts(x)
            parts += LEVELS
            y = _run(session, x=parts.astype(np.uint8)).astype(np.float32)
            result = joined(y, step)
            result *= scale
            result += bias
            return result
        return product


def onnx_runtime(num_threads: int) -> Runtime:
    """Return ONNX Runtime; num_threads 0: as many as there are cores."""
    sessions = _Sessions(num_threads)
    return Runtime(
        f'ONNX Runtime {onnxruntime.__version__}', sessions.encoder, sessions.product,
        sessions.image_product)  # int8 weights stay what they are


def _run(session: Any, **inputs: np.ndarray) -> np.ndarray:
    output: np.ndarray = session.run(None, inputs)[0]
    return output
