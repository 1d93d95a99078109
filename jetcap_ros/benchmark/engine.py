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

"""Time and weigh the engine without ROS, in a process of its own; prints a JSON line."""

import argparse
from dataclasses import asdict
import json
import os
import time


def main() -> None:
    """Caption noise at a steady rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('settings', type=json.loads, help='fields of CaptionerSettings, as JSON')
    parser.add_argument('--captions', type=int, default=50)
    parser.add_argument('--pause', type=float, default=0.05, help='seconds between captions')
    args = parser.parse_args()
    import numpy as np

    from .processes import shares_mb
    from ..engine.captioner import Captioner
    from ..engine.settings import CaptionerSettings
    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    settings = CaptionerSettings(**{**args.settings, 'fallback': 'none'})
    worker, total = [], []
    with Captioner(settings) as captioner:
        captioner.configure()
        for _ in range(args.captions):
            time.sleep(args.pause)
            started = time.perf_counter()
            caption = captioner.caption(picture)
            total.append((time.perf_counter() - started) * 1e3)
            worker.append(caption.seconds * 1e3)
        stages = [asdict(stage) for stage in captioner.stages]
        pids = [os.getpid(), captioner.worker_pid or 0]
        worker_mb = shares_mb(pids)[pids[1]]
    print(json.dumps({
        'worker_ms': worker, 'total_ms': total, 'stages': stages, 'worker_mb': worker_mb}))


if __name__ == '__main__':
    main()
