#!/usr/bin/env bash
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

# Draws demo.png anew: the demo's page on photographs with free terms, in headless Chromium.
#   docs/images/draw_demo.sh [PHOTOGRAPH...]      (of scikit-image; default: the three below)
set -eu
images=$(cd "$(dirname "$0")" && pwd)
cd "$images/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
data=$(.venv/bin/python -c 'import pathlib, skimage; print(pathlib.Path(skimage.__file__).parent)')/data
mkdir "$work/pictures"
for name in "${@:-astronaut.png chelsea.png coffee.png}"; do
    for file in $name; do ln -s "$data/$file" "$work/pictures/"; done
done
.venv/bin/python -m jetcap_ros.demo --images "$work/pictures" --out "$work"
chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
    --disable-background-networking --disable-component-update --disable-sync \
    --user-data-dir="$work/profile" --hide-scrollbars --window-size=1200,1095 \
    --screenshot="$work/demo.png" "file://$work/index.html" 2> /dev/null
# 256 colours: a quarter of the size.
.venv/bin/python - "$work/demo.png" "$images/demo.png" <<'PYTHON'
import sys

from PIL import Image

Image.open(sys.argv[1]).convert('RGB').quantize(256, kmeans=3).save(sys.argv[2], optimize=True)
PYTHON
ls -l "$images/demo.png"
