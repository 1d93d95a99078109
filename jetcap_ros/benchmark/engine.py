"""Time the engine without ROS, in a process of its own; prints a JSON line."""

import argparse
import json
import time


def main() -> None:
    """Caption noise at a steady rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('model')
    parser.add_argument('checkpoint')
    parser.add_argument('--captions', type=int, default=50)
    parser.add_argument('--pause', type=float, default=0.05, help='seconds between captions')
    args = parser.parse_args()
    import numpy as np

    from ..captioner import Captioner, CaptionerSettings
    picture = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    settings = CaptionerSettings(
        model=args.model, fallback='none', checkpoint=args.checkpoint, min_available_memory_mb=0)
    worker, total = [], []
    with Captioner(settings) as captioner:
        captioner.configure()
        for _ in range(args.captions):
            time.sleep(args.pause)
            started = time.perf_counter()
            caption = captioner.caption(picture)
            total.append((time.perf_counter() - started) * 1e3)
            worker.append(caption.seconds * 1e3)
        stages = captioner.stages
    print(json.dumps({'worker_ms': worker, 'total_ms': total, 'stages': stages}))


if __name__ == '__main__':
    main()
