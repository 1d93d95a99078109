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

"""Runs a launch file as `ros2 launch` does, on the source tree, in a ROS domain of its own."""

import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import time

from jetcap_ros.node.domain import reserve_domain
import psutil

ROOT = Path(__file__).parent.parent
RUN = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
service = LaunchService(argv=sys.argv[2:])
arguments = [argument.split(':=', 1) for argument in sys.argv[2:]]
service.include_launch_description(IncludeLaunchDescription(
    PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments))
sys.exit(service.run())
"""


def write_prefix(folder: Path, executables: dict[str, str]) -> None:
    """Write what an installed package has of what launch looks for: `package/name` to a script."""
    for path, script in executables.items():
        package, name = path.split('/')
        marker = folder / 'share' / 'ament_index' / 'resource_index' / 'packages' / package
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        executable = folder / 'lib' / package / name
        executable.parent.mkdir(parents=True)
        executable.write_text(script)
        executable.chmod(0o755)


class LaunchProcess:
    """
    A launch file that runs; a context manager.

    :param prefix: an empty folder, for what launch looks for in an installed package.
    :param executables: more of them, as `package/name` and script.
    """

    def __init__(
            self, prefix: Path, name: str, arguments: dict[str, str],
            executables: dict[str, str] = {}) -> None:
        self.domain, self._reserved = reserve_domain()
        write_prefix(prefix, {
            'jetcap_ros/captioner': f'#!/bin/sh\nexec {sys.executable} -m jetcap_ros.node "$@"\n',
            **executables})
        prefixes = os.environ.get('AMENT_PREFIX_PATH', sys.prefix)
        self._output = tempfile.TemporaryFile('w+')
        self.process = subprocess.Popen(
            [sys.executable, '-c', RUN, str(ROOT / 'launch' / f'{name}.launch.py'),
             *(f'{key}:={value}' for key, value in arguments.items())],
            stdout=self._output, stderr=subprocess.STDOUT, cwd=ROOT,
            env={**os.environ, 'ROS_DOMAIN_ID': str(self.domain), 'PYTHONUNBUFFERED': '1',
                 'AMENT_PREFIX_PATH': f'{prefix}{os.pathsep}{prefixes}'})

    def __enter__(self) -> 'LaunchProcess':
        return self

    def __exit__(self, *exc_info) -> None:
        for process in self.children():
            process.kill()
        self.process.kill()
        self.process.wait()
        self._output.close()
        self._reserved.close()

    def output(self) -> str:
        """Return what launch and its processes have printed so far."""
        self._output.seek(0)
        return self._output.read()

    def children(self):
        """Return the living processes that it started, and theirs."""
        try:
            return [child for child in psutil.Process(self.process.pid).children(recursive=True)
                    if child.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []

    def wait_for(self, condition, timeout: float = 30) -> None:
        """Wait until a condition holds; fail with the output if it does not in time."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f'waited in vain; launch said:\n{self.output()}'
            time.sleep(0.1)

    def end(self) -> int:
        """Interrupt it as Ctrl-C does and return the exit code."""
        children = self.children()
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=20)
        assert not psutil.wait_procs(children, timeout=5)[1], 'processes were left behind'
        return code
