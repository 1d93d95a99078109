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

"""The process of the captioner node: `ros2 run jetcap_ros captioner`."""

from collections.abc import Sequence
import os
import signal


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is told to end; return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))  # there is nothing to take apart yet
    from .run import run  # here, as it takes a second in which Ctrl-C may come
    return run(args)


if __name__ == '__main__':
    raise SystemExit(main())
