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

from collections.abc import Mapping, Sequence
from queue import SimpleQueue
import signal
import sys
import threading
import time
import traceback

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.impl.logging_severity import LoggingSeverity
from rclpy.signals import SignalHandlerOptions

from .captioner_node import CaptionerNode
from .executor import NodeExecutor
from .parameter_files import (
    parameter_files, ParameterFileError, read_node_names, unused_file)
from .parameters import ParameterError
from ..memory.file_pages import release_file_pages

SIGNALS = (signal.SIGINT, signal.SIGTERM)  # that ask for the end
NAMES = 'names are letters, digits and _, do not begin with a digit, and are separated by /'


class CommandLineError(ValueError):
    """What rclpy could not make sense of."""


def run(args: Sequence[str] | None = None) -> int:
    """Run the node until it is told to end; return the exit code."""
    ended: SimpleQueue[None] = SimpleQueue()
    for number in SIGNALS:
        signal.signal(number, lambda *_: ended.put(None))
    args = sys.argv if args is None else args
    try:
        files = {path: read_node_names(path) for path in parameter_files(args)}
        _init(args)
        _run_node(files, ended)
    except (CommandLineError, ParameterError, ParameterFileError) as error:
        rclpy.logging.get_logger('captioner').fatal(str(error))
        return 1
    finally:
        rclpy.try_shutdown()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # Python, ending, would let others kill it
    return 0


def _init(args: Sequence[str]) -> None:
    try:
        # rclpy would take the context away from under what is at work, at once.
        rclpy.init(args=list(args), signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # its text ends with places in rcl's source
        text = str(error).removeprefix('failed to initialize rcl: ').partition(', at /')[0]
        rule = f'; {NAMES}' if 'remap' in text else ''
        raise CommandLineError(f'command line: {text}{rule}') from error


def _run_node(files: Mapping[str, Sequence[str]], ended: SimpleQueue[None]) -> None:
    """Run the node, in another thread so that a signal is heard at once, until `ended` has one."""
    node = CaptionerNode()
    for path, names in files.items():
        unused = unused_file(path, names, node.get_fully_qualified_name())
        if unused:
            node.get_logger().warning(unused)
    executor = NodeExecutor(node)
    release_file_pages()
    spinner = threading.Thread(target=_spin, args=(node, executor, ended), daemon=True)
    spinner.start()
    ended.get()
    # What is cut short now, a configure say, would complain of its end.
    node.get_logger().set_level(LoggingSeverity.FATAL)
    executor.shutdown(timeout_sec=1)
    spinner.join(timeout=1)
    node.release()
    node.destroy_node()


def _spin(node: CaptionerNode, executor: NodeExecutor, ended: SimpleQueue[None]) -> None:
    while rclpy.ok():
        try:
            executor.spin()
            break
        except ExternalShutdownException:
            break
        except Exception:  # of what was taken apart while the executor waited for it
            node.get_logger().error(traceback.format_exc(), throttle_duration_sec=1.0)
            time.sleep(0.1)
    ended.put(None)
