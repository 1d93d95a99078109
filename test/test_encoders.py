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

"""Test the encoders against torchvision's, in torch and in OpenCV, and what they are given."""

import copy
import math
import tempfile

import cv2
from jetcap_ros.images.preprocessing import MEAN, normalize, squash, STD
from jetcap_ros.models.architectures import (
    describe_encoder, ENCODERS, norm_epsilon, parameter_shapes, recognize_encoder)
from jetcap_ros.models.encoder import MobileNetEncoder
from jetcap_ros.models.encoder_graph import encoder_graph
from jetcap_ros.models.runtimes.opencv import load_graph
from jetcap_ros.models.weight import Weight
from model_files import features, picture
import numpy as np
import pytest
import torch

KINDS = {
    **{name: (name, 1.0, False) for name in ENCODERS},
    'v3_small half width': ('mobilenet_v3_small', 0.5, False),
    'v3_small pruned': ('mobilenet_v3_small', 0.5, True),
    'v2 pruned': ('mobilenet_v2', 0.5, True),
    'v3_large pruned': ('mobilenet_v3_large', 0.5, True)}


def shapes_of(network):
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def folded_parameters(architecture, network):
    """Return the weights with batch normalization folded in, in double precision."""
    state = {name: tensor.double() for name, tensor in network.state_dict().items()}
    parameters = {}
    for block in describe_encoder(architecture, shapes_of(network)):
        for layer in block.layers:
            if hasattr(layer, 'squeezed'):
                parameters.update(
                    (name, state[name]) for name in state if name.startswith(layer.name + '.'))
                continue
            gain = state[layer.norm + '.weight'] / torch.sqrt(
                state[layer.norm + '.running_var'] + norm_epsilon(architecture))
            parameters[layer.name + '.weight'] = (
                state[layer.name + '.weight'] * gain[:, None, None, None])
            parameters[layer.name + '.bias'] = (
                state[layer.norm + '.bias'] - state[layer.norm + '.running_mean'] * gain)
    return parameters


@pytest.fixture(scope='module', params=list(KINDS), ids=list(KINDS))
def network(request):
    """Return the architecture, torchvision's encoder, an image and its features."""
    reference = features(*KINDS[request.param])
    image = torch.from_numpy(normalize(picture(1)))
    with torch.no_grad():
        return KINDS[request.param][0], reference, image, reference(image)


def test_equal_to_torchvision_with_its_parameter_names(network):
    architecture, reference, image, expected = network
    encoder = MobileNetEncoder(
        architecture, describe_encoder(architecture, shapes_of(reference))).eval()
    assert list(encoder.state_dict()) == list(reference.state_dict())
    encoder.load_state_dict(reference.state_dict())
    with torch.no_grad():
        found = encoder(image)
    assert encoder.out_channels == found.shape[1]
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_folded_and_in_opencv_equal_to_torchvision(network):
    architecture, reference, image, expected = network
    blocks = describe_encoder(architecture, shapes_of(reference))
    parameters = folded_parameters(architecture, reference)
    assert parameter_shapes(blocks, folded=True) == {
        name: tuple(tensor.shape) for name, tensor in parameters.items()}
    encoder = MobileNetEncoder(architecture, blocks, folded=True).double().eval()
    encoder.load_state_dict(parameters)
    with torch.no_grad():
        exact = encoder(image.double())
        torch.testing.assert_close(
            exact, copy.deepcopy(reference).double()(image.double()), rtol=0, atol=1e-9)

    net = load_graph(encoder_graph(
        blocks, lambda name: Weight(parameters[name].float().numpy()), 224))
    net.setInput(image.numpy())
    # Random networks amplify what float32 rounds; 1e-4 of the largest feature.
    np.testing.assert_allclose(
        net.forward(), exact.numpy(), rtol=0, atol=1e-4 * float(expected.max()))


def test_recognized_by_parameter_names(network):
    architecture, reference, _, _ = network
    assert recognize_encoder(reference.state_dict()) == architecture


@pytest.mark.parametrize('architecture', ENCODERS)
def test_sizes_of_the_papers(architecture):
    blocks = describe_encoder(architecture)
    plain = {name: shape for name, shape in shapes_of(features(*KINDS[architecture])).items()
             if not name.endswith('num_batches_tracked')}
    assert parameter_shapes(blocks) == plain


def test_efficientnet_has_the_published_number_of_parameters():
    shapes = parameter_shapes(describe_encoder('efficientnet_lite2'))
    trained = sum(math.prod(shape) for name, shape in shapes.items() if 'running' not in name)
    assert trained + 1280 * 1000 + 1000 == 6_092_072  # with its classifier


def test_on_the_meta_device_an_encoder_takes_no_memory():
    encoder = MobileNetEncoder('mobilenet_v3_small', folded=True, device='meta')
    assert {parameter.device.type for parameter in encoder.parameters()} == {'meta'}


def test_unknown_encoders_are_refused():
    with pytest.raises(ValueError, match='resnet.*mobilenet_v2'):
        describe_encoder('resnet')
    with pytest.raises(ValueError, match='none of'):
        recognize_encoder(['conv1.weight', 'layer1.0.conv1.weight'])


@pytest.mark.parametrize('name, shape', [
    ('0.0.weight', None), ('0.0.weight', (16, 4, 3, 3)), ('0.0.weight', (16, 3, 5, 5)),
    ('0.0.weight', (0, 3, 3, 3)), ('0.0.weight', (16,)), ('2.block.1.0.weight', (73, 1, 3, 3)),
    ('1.block.1.fc1.weight', (8, 17, 1, 1)), ('12.0.weight', (576, 95, 1, 1))])
def test_shapes_that_do_not_fit_are_refused(name, shape):
    shapes = parameter_shapes(describe_encoder('mobilenet_v3_small'))
    if shape is None:
        del shapes[name]
    else:
        shapes[name] = shape
    with pytest.raises(ValueError, match=name):
        describe_encoder('mobilenet_v3_small', shapes)


def test_normalized_as_torchvision_does():
    from torchvision.transforms import functional
    image = picture(2)
    expected = functional.normalize(functional.to_tensor(image), MEAN.tolist(), STD.tolist())
    found = normalize(image)
    assert found.dtype == np.float32 and found.flags['C_CONTIGUOUS']
    np.testing.assert_allclose(found, expected.numpy()[None], rtol=0, atol=1e-6)


def test_a_picture_of_the_right_size_stays_as_it_is():
    image = picture(3)
    assert np.array_equal(squash(image), image)
    assert np.array_equal(squash(image[:, ::-1]), image[:, ::-1])
    assert squash(image[:, ::-1]).flags['C_CONTIGUOUS']


def test_shrinking_takes_the_mean_of_the_area():
    image = np.random.default_rng(0).integers(0, 256, (448, 672, 3), np.uint8)
    means = image.reshape(224, 2, 224, 3, 3).mean(axis=(1, 3))
    assert np.abs(squash(image) - means).max() <= 0.5 + 1e-6


def test_enlarging_equals_bilinear_interpolation():
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(tensor, (224, 224), mode='bilinear')
    assert np.abs(squash(image) - expected[0].permute(1, 2, 0).numpy()).max() <= 1


@pytest.mark.parametrize('size', [(480, 640), (640, 100), (10, 2000), (1, 1)])
def test_the_whole_picture_is_used_and_its_aspect_ratio_is_not_kept(size):
    image = np.zeros((*size, 3), np.uint8)
    image[:, size[1] // 2:] = 200  # right half
    found = squash(image)
    assert found.shape == (224, 224, 3) and found.dtype == np.uint8
    left = 200 if size == (1, 1) else 0
    assert (found[:, :100] == left).all() and (found[:, 124:] == 200).all()


@pytest.mark.parametrize('image', [
    np.zeros((0, 5, 3), np.uint8), np.zeros((5, 0, 3), np.uint8), np.zeros((5, 5), np.uint8),
    np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3), np.float32),
    np.zeros((1, 5, 5, 3), np.uint8), np.zeros((), np.uint8)])
def test_what_is_not_a_picture_is_refused(image):
    with pytest.raises(ValueError, match='height, width, 3'):
        squash(image)


def test_a_graph_that_opencv_cannot_build_is_said_so():
    with tempfile.TemporaryFile() as file:
        file.write(b'\x08\x07no graph')
        file.flush()
        with pytest.raises(RuntimeError, match=f'OpenCV {cv2.__version__}'):
            load_graph(file)
