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
Write which objects a detector sees in pictures: targets for the word detector, beside captions.

    python -m jetcap_ros.training.objects IMAGES --detector yolox_nano.onnx --out objects.jsonl

The detector is a YOLOX network (Ge et al. 2021) with COCO's 80 objects, as ONNX. One line a
picture: `{"file": "a.jpg", "objects": {"cup": 0.81}}`, by the words that captions use. A picture
that cannot be read is told and left out; the exit code is 0 only if none was.
"""

import argparse
import json
import os
import sys

import cv2
import numpy as np
from tqdm import tqdm

from ..errors import UserError
from ..images.picture import read_picture
from ..outputs import require_file

SIDE = 416
LEAST = 0.3  # less certain objects are left out
# COCO's names in its order; what captions call them where that is another word, '' where no
# single word means the object alone.
NAMES = (
    'person: bicycle car motorcycle airplane bus train truck boat traffic_light: hydrant '
    'stop_sign:sign meter bench bird cat dog horse sheep cow elephant bear zebra giraffe backpack '
    'umbrella handbag:purse tie suitcase frisbee skis snowboard ball kite bat glove skateboard '
    'surfboard racket bottle wine_glass:wine cup fork knife spoon bowl banana apple sandwich '
    'orange: broccoli carrot hot_dog: pizza donut cake chair couch plant bed table toilet '
    'tv:television laptop mouse remote keyboard cell_phone:phone microwave oven toaster sink '
    'refrigerator book clock vase scissors teddy_bear:teddy hair_drier: toothbrush').split()


def detect(network: cv2.dnn.Net, image: np.ndarray) -> dict[str, float]:
    """Return how certain each object is that is in an (H, W, 3) uint8 RGB picture, 0..1."""
    network.setInput(cv2.dnn.blobFromImage(image, size=(SIDE, SIDE), swapRB=True))
    found = network.forward()[0]  # (anchors, 4 of the box, 1 any object, 80 which)
    certain = (found[:, 4:5] * found[:, 5:]).max(axis=0)
    words = [name.partition(':')[2] if ':' in name else name for name in NAMES]
    return {
        word: round(float(value), 3) for word, value in zip(words, certain)
        if word and value >= LEAST}


def main() -> int:
    """Write the objects of all pictures of a folder; 1 if one of them could not be read."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', help='folder of pictures')
    parser.add_argument('--detector', required=True, help='YOLOX network with 80 objects, ONNX')
    parser.add_argument('--out', required=True)
    args = parser.parse_args()
    try:
        require_file(args.out)
    except UserError as error:
        parser.error(str(error))
    cv2.setNumThreads(1)  # for so small a network more cost more than they bring
    network = cv2.dnn.readNetFromONNX(args.detector)
    code = 0
    with open(args.out, 'w', encoding='utf-8') as file:
        for name in tqdm(sorted(os.listdir(args.images)), unit='pictures'):
            try:
                image = read_picture(os.path.join(args.images, name))
            except UserError as error:
                tqdm.write(f'{error}; it is left out', file=sys.stderr)
                code = 1
                continue
            objects = detect(network, image)
            file.write(json.dumps({'file': name, 'objects': objects}) + '\n')
    return code


if __name__ == '__main__':
    sys.exit(main())
