from glob import glob

from setuptools import find_packages, setup

package_name = 'jetcap_ros'

replay = ['rosbags>=0.11', 'mcap', 'ruamel.yaml', 'zstandard', 'tqdm']
train = ['torch>=2.1', 'torchvision', 'matplotlib', 'PyYAML', 'tqdm']
evaluate = ['pycocoevalcap', 'matplotlib', 'tqdm']
test = [
    'pytest<9', 'hypothesis', 'jsonschema', 'safetensors', 'scikit-image', 'flake8', 'pydocstyle']

setup(
    name=package_name,
    version='0.1.0',
    packages=find_packages(exclude=['test']),
    package_data={package_name: ['checkpoints/*.safetensors', '*.html', '*/*.html']},
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
    description='Captions for a robot\'s camera, on computers with little memory',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'captioner = jetcap_ros.captioner_node:main',
            'jetcap = jetcap_ros.cli:main',
        ],
    },
)
