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

"""
The flow this package replaces, in a process of its own: everything imported and built at once.

Prints a JSON line with the peak RSS and the time until the first caption is there.
"""

import copy
import json
import sys
import time
import warnings


def main(path: str) -> None:
    """Import, build in float32, load the whole checkpoint, copy, quantize, caption once."""
    started = time.perf_counter()
    import cv2
    import torch
    import torchvision  # noqa: F401, as in the programs this stands for

    from .plain_model import load_plain_model
    from .processes import peak_rss_mb
    warnings.simplefilter('ignore')
    model, checkpoint = load_plain_model(path)
    quantized = torch.ao.quantization.quantize_dynamic(
        copy.deepcopy(model), {torch.nn.Linear, torch.nn.GRUCell}, dtype=torch.qint8)
    ready = time.perf_counter()
    frame = cv2.resize(torch.zeros(480, 640, 3, dtype=torch.uint8).numpy(), (224, 224))
    image = torch.from_numpy(frame).permute(2, 0, 1)[None].float() / 255
    word_map = checkpoint['word_map']
    words = quantized.generate(image, word_map['<start>'], word_map['<end>'], 20)
    print(json.dumps({
        'peak_rss_mb': peak_rss_mb(), 'ready_s': ready - started,
        'first_caption_s': time.perf_counter() - started, 'words': len(words)}))


if __name__ == '__main__':
    main(sys.argv[1])
