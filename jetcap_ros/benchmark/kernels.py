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

"""
Compare ways to compute what captioning consists of: `python -m jetcap_ros.benchmark.kernels`.

The product of a word (all weights that meet the decoder's state, 5792 x 512, for a vocabulary of
4000), for one row and for the three of a beam search; that of an image (all weights that meet its
49 cells); and the MobileNetV3-Small encoder.
"""

import argparse
from collections.abc import Callable
import os

from .decoding import timed
from .report import Table

ROWS, COLUMNS = 5792, 512
IMAGE_ROWS, IMAGE_COLUMNS, CELLS = 1792, 576, 49


def products() -> Table:
    """Return us of the product, float32 unless it says otherwise."""
    import numpy as np
    import torch

    from ..models.weight import quantize_rows, Weight
    from ..models.runtimes.opencv import opencv_product
    from ..models.torch_products import int8_product
    generator = np.random.default_rng(0)
    values = generator.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    bias = np.zeros(ROWS, np.float32)
    one, three = (
        generator.standard_normal((rows, COLUMNS)).astype(np.float32) for rows in (1, 3))
    tensor = torch.from_numpy(values)
    bfloat = tensor.bfloat16()
    ways: list[tuple[str, Callable[[np.ndarray], object]]] = [
        ('NumPy, a product a row', lambda x: [values @ row for row in x]),
        ('NumPy, rows as one matrix', lambda x: x @ values.T),
        ("OpenCV's DNN module (simple model)", opencv_product(Weight(values), bias)),
        ('torch', lambda x: torch.nn.functional.linear(torch.from_numpy(x), tensor)),
        ('torch, bfloat16', lambda x: torch.nn.functional.linear(
            torch.from_numpy(x).bfloat16(), bfloat)),
        ('torch, int8, input in two parts (full model)',
         int8_product(quantize_rows(values), bias))]
    with torch.inference_mode():
        rows = [
            [name, *(timed(lambda: way(x), 200)['p50'] * 1e3 for x in (one, three))]
            for name, way in ways]
    return Table(f'Product of a word, {ROWS} x {COLUMNS} (us)', ['way', '1 row', '3 rows'], rows)


def image_products() -> Table:
    """Return us of the product, of int8 weights."""
    import numpy as np

    from ..models.weight import quantize_rows, Weight
    from ..models.runtimes.blas import numpy_product
    from ..models.runtimes.opencv import (
        convolution_product, matrix_product, opencv_product)
    from ..models.torch_products import int8_product
    generator = np.random.default_rng(0)
    weight = quantize_rows(
        generator.standard_normal((IMAGE_ROWS, IMAGE_COLUMNS)).astype(np.float32))
    bias = np.zeros(IMAGE_ROWS, np.float32)
    cells = generator.standard_normal((CELLS, IMAGE_COLUMNS)).astype(np.float32)

    def plain_product(weight: Weight, bias: np.ndarray) -> Callable[[np.ndarray], object]:
        values = weight.dequantized()
        return lambda x: x @ values.T + bias

    ways = [
        ('NumPy', plain_product), ("OpenCV's DNN module", opencv_product),
        ('NumPy, of int8 made float32 in blocks (simple model)', numpy_product),
        ("OpenCV's DNN module, the same (simple model)", matrix_product),
        ('the same, as a convolution (simple model before OpenCV 4.7)', convolution_product),
        ('torch, int8, input in two parts (full model)', int8_product)]
    rows = []
    for name, make in ways:
        product = make(weight, bias)
        rows.append([name, timed(lambda: product(cells), 100)['p50'] * 1e3])
    return Table(
        f'Product of an image, {IMAGE_ROWS} x {IMAGE_COLUMNS}, {CELLS} cells (us)',
        ['way', 'us'], rows)


def encoders(threads: int) -> Table:
    """Return ms of the encoder."""
    import torch
    from torch.nn.utils.fusion import fuse_conv_bn_eval
    from torchvision.models import mobilenet_v3_small
    from torchvision.ops import Conv2dNormActivation

    def fold(module: torch.nn.Module) -> torch.nn.Module:
        for name, child in module.named_children():
            if isinstance(child, Conv2dNormActivation):
                convolution, norm, *rest = child.children()
                setattr(module, name, torch.nn.Sequential(
                    fuse_conv_bn_eval(convolution, norm), *rest))
            else:
                fold(child)
        return module

    image = torch.randn(1, 3, 224, 224)
    last = image.contiguous(memory_format=torch.channels_last)
    plain = mobilenet_v3_small(weights=None).features.eval()
    folded = fold(mobilenet_v3_small(weights=None).features.eval())
    folded_last = fold(mobilenet_v3_small(weights=None).features.eval()).to(
        memory_format=torch.channels_last)
    with torch.no_grad():
        frozen = torch.jit.optimize_for_inference(torch.jit.freeze(torch.jit.trace(plain, image)))
    ways: list[tuple[str, Callable[[], object]]] = [
        ('torchvision, as it is', lambda: plain(image)),
        ('batch normalization folded', lambda: folded(image)),
        ('folded, channels last (full model)', lambda: folded_last(last)),
        ('torch.jit, frozen and optimized', lambda: frozen(image)),
        ("OpenCV's DNN module (simple model)", _opencv_encoder(threads))]
    with torch.inference_mode():
        rows = [[name, timed(way, 60)['p50']] for name, way in ways]
    return Table('MobileNetV3-Small features of 224x224 (ms)', ['way', 'ms'], rows)


def _opencv_encoder(threads: int) -> Callable[[], object]:
    import cv2
    import numpy as np

    from ..models.architectures import describe_encoder, parameter_shapes
    from ..models.encoder_graph import encoder_graph
    from ..models.weight import Weight
    from ..models.runtimes.opencv import load_graph
    cv2.setNumThreads(threads)
    blocks = describe_encoder('mobilenet_v3_small')
    shapes = parameter_shapes(blocks)
    generator = np.random.default_rng(0)

    def read(name: str) -> Weight:
        if name in shapes:
            return Weight((generator.standard_normal(shapes[name]) * 0.1).astype(np.float32))
        weight = shapes[name.rsplit('.', 1)[0] + '.weight']  # the bias that folding gives
        return Weight(np.zeros(weight[0], np.float32))

    network = load_graph(encoder_graph(blocks, read, 224))
    image = generator.standard_normal((1, 3, 224, 224)).astype(np.float32)

    def forward() -> object:
        network.setInput(image)
        return network.forward()
    return forward


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--threads', type=int, default=1)
    threads = parser.parse_args().threads
    # Before the libraries are loaded, which read them once.
    os.environ['OMP_NUM_THREADS'] = os.environ['OPENBLAS_NUM_THREADS'] = str(threads)
    import torch
    torch.set_num_threads(threads)
    print(f'threads: {threads}\n')
    print(products().markdown())
    print(image_products().markdown())
    print(encoders(threads).markdown())


if __name__ == '__main__':
    main()
