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

from glob import glob

from setuptools import find_packages, setup

package_name = 'jetcap_ros'

replay = ['rosbags>=0.11', 'mcap', 'lz4', 'ruamel.yaml', 'zstandard', 'tqdm']
train = ['torch>=2.1', 'torchvision', 'matplotlib', 'PyYAML', 'tqdm']
evaluate = ['pycocoevalcap', 'matplotlib', 'tqdm']
test = [
    'pytest<9', 'pytest-timeout', 'pytest-xdist', 'hypothesis', 'jsonschema', 'safetensors',
    'scikit-image',
    'mypy>=2', 'import-linter', 'check-jsonschema', 'ruff', 'flake8', 'flake8-import-order',
    'flake8-quotes', 'flake8-builtins', 'flake8-comprehensions', 'flake8-class-newline',
    'flake8-blind-except', 'flake8-deprecated']

setup(
    name=package_name,
    version='0.1.0',
    packages=find_packages(exclude=['test']),
    package_data={package_name: ['checkpoints/*.safetensors', '*/*.html']},
    data_files=[
        ('share/ament_index/resource_index/packages', ['resource/' + package_name]),
        ('share/' + package_name, ['package.xml']),
        ('share/' + package_name + '/launch', glob('launch/*.launch.py')),
        ('share/' + package_name + '/config', glob('config/*.yaml')),
        ('share/' + package_name + '/config/training', glob('config/training/*.yaml')),
    ],
    # ROS 2 itself comes from the distribution (or from the ros-* wheels, see the Makefile).
    install_requires=['setuptools', 'numpy>=1.21', 'psutil', 'Jinja2'],
    extras_require={
        'opencv': ['opencv-python-headless'],  # where the distribution's OpenCV is not there
        'torch': ['torch>=2.1'],
        'onnxruntime': ['onnxruntime'],  # runs the simple model faster
        'replay': replay,
        'train': train,
        'evaluate': evaluate,
        'dask': ['distributed'],
        'test': test,
    },
    python_requires='>=3.10',
    zip_safe=False,  # the shipped checkpoint is mapped from its file
    maintainer='jetcap_ros maintainers',
    maintainer_email='maintainers@jetcap-ros.example',
    description="Captions for a robot's camera, on computers with little memory",
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'captioner = jetcap_ros.node.__main__:main',
            'jetcap = jetcap_ros.cli:main',
        ],
    },
)
