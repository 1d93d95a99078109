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

"""The MobileNet encoders in torch."""

import torch
from torch import nn

from .architectures import Block, describe_encoder, norm_epsilon, SqueezeExcitation

ACTIVATIONS = {'relu': nn.ReLU, 'relu6': nn.ReLU6, 'hardswish': nn.Hardswish}


class _Convolution(nn.Conv2d):

    def reset_parameters(self) -> None:
        # Random numbers on the meta device: none, but 150 MB of modules that torch imports.
        if self.weight.device.type != 'meta':
            super().reset_parameters()


class _SqueezeExcitation(nn.Module):

    def __init__(self, channels: int, squeezed: int, device: str | None = None) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = _Convolution(channels, squeezed, 1, device=device)
        self.fc2 = _Convolution(squeezed, channels, 1, device=device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.fc2(nn.functional.relu(self.fc1(self.avgpool(x))))
        return nn.functional.hardsigmoid(gate) * x


class MobileNetEncoder(nn.Module):
    """
    A MobileNet without its classifier: (N, 3, 224, 224) images to (N, C, 7, 7) features, say.

    :param folded: batch normalization is folded into the convolutions, which then have a bias:
        the form for inference, and the one packed files hold.
    """

    def __init__(
            self, architecture: str = 'mobilenet_v3_small', blocks: list[Block] | None = None,
            folded: bool = False, device: str | None = None) -> None:
        super().__init__()
        self.architecture = architecture
        self.folded = folded
        self.blocks = blocks or describe_encoder(architecture)
        self.out_channels = self.blocks[-1].layers[-1].out_channels
        epsilon = norm_epsilon(architecture)
        self._steps: list[tuple[list[nn.Module], bool]] = []
        for block in self.blocks:
            steps: list[nn.Module] = []
            for layer in block.layers:
                if isinstance(layer, SqueezeExcitation):
                    steps.append(_SqueezeExcitation(layer.channels, layer.squeezed, device))
                    self._place(layer.name, steps[-1])
                    continue
                steps.append(_Convolution(
                    layer.in_channels, layer.out_channels, layer.kernel, layer.stride,
                    padding=layer.kernel // 2, bias=folded, device=device,
                    groups=layer.in_channels if layer.depthwise else 1))
                self._place(layer.name, steps[-1])
                if not folded:
                    steps.append(nn.BatchNorm2d(
                        layer.out_channels, epsilon, device=device,
                        momentum=0.1 if architecture == 'mobilenet_v2' else 0.01))
                    self._place(layer.norm, steps[-1])
                if layer.activation:
                    steps.append(ACTIVATIONS[layer.activation](inplace=True))
            self._steps.append((steps, block.residual))

    def _place(self, name: str, module: nn.Module) -> None:
        """Register a module under a dotted name, so that parameters are called as torchvision's."""
        *path, last = name.split('.')
        parent: nn.Module = self
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run_blocks(x)

    def run_blocks(
            self, x: torch.Tensor, first: int = 0, last: int | None = None) -> torch.Tensor:
        """Run the blocks from `first` up to, but without, `last` on what the ones before gave."""
        for steps, residual in self._steps[first:last]:
            y = x
            for step in steps:
                y = step(y)
            x = x + y if residual else y
        return x

    def block_modules(self, first: int = 0, last: int | None = None) -> list[nn.Module]:
        """Return the layers of the blocks from `first` up to, but without, `last`."""
        return [step for steps, _ in self._steps[first:last] for step in steps]
