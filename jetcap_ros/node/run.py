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

"""Starts the captioner node, spins it, and takes it apart."""

from collections.abc import Sequence
import signal
import sys
import time
import traceback

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.impl.logging_severity import LoggingSeverity

from .captioner_node import CaptionerNode
from .executor import NodeExecutor
from .parameter_files import (
    parameter_files, ParameterFileError, read_node_names, unused_file)
from .parameters import ParameterError
from ..memory.file_pages import release_file_pages

NAMES = 'names are letters, digits and _, do not begin with a digit, and are separated by /'


class CommandLineError(ValueError):
    """What rclpy could not make sense of."""


def run(args: Sequence[str] | None = None) -> int:
    """Run the node until it is told to end; return the exit code."""
    node = executor = None
    try:
        node = _create_node(sys.argv if args is None else args)
        executor = NodeExecutor(node)
        release_file_pages()
        _spin(node, executor)
    except (CommandLineError, ParameterError, ParameterFileError) as error:
        rclpy.logging.get_logger('captioner').fatal(str(error))
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        # A second Ctrl-C must not interrupt the tidying up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if node is not None:
            # What is cut short now, a configure say, would complain of its end.
            node.get_logger().set_level(LoggingSeverity.FATAL)
            node.release()
        if executor is not None:
            executor.shutdown(timeout_sec=1)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _create_node(args: Sequence[str]) -> CaptionerNode:
    files = {path: read_node_names(path) for path in parameter_files(args)}
    try:
        rclpy.init(args=list(args))
    except RuntimeError as error:  # its text ends with places in rcl's source
        text = str(error).removeprefix('failed to initialize rcl: ').partition(', at /')[0]
        rule = f'; {NAMES}' if 'remap' in text else ''
        raise CommandLineError(f'command line: {text}{rule}') from error
    node = CaptionerNode()
    for path, names in files.items():
        unused = unused_file(path, names, node.get_fully_qualified_name())
        if unused:
            node.get_logger().warning(unused)
    return node


def _spin(node: CaptionerNode, executor: NodeExecutor) -> None:
    while rclpy.ok():
        try:
            executor.spin()
        except (KeyboardInterrupt, ExternalShutdownException):
            return
        except Exception:  # of what was taken apart while the executor waited for it
            if not rclpy.ok():  # the signal came between two waits
                return
            node.get_logger().error(traceback.format_exc(), throttle_duration_sec=1.0)
            time.sleep(0.1)
