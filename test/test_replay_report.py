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

"""The report: whole in one file, of bounded size, right in a browser."""

import re
import shutil
import subprocess

from jetcap_ros.images.page import render_page, thumbnail
from jetcap_ros.replay.captions import CaptionRecord
from jetcap_ros.replay.charts import clock, line_chart, nice_ceiling
from jetcap_ros.replay.folder import MAX_THUMBNAILS, ReplayFolder, Timing
from jetcap_ros.replay.report import write_report
from jetcap_ros.replay.runner import ReplayResult
import numpy as np
import pytest
from replay_bags import frame_image, START

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')
WORDS = 'a red blue green small large cat dog bus cup on under beside the sofa table'.split()


def write_folder(path, captions, topics=('/camera/image_raw',)):
    """Write a folder as replay does and its report; return the page."""
    with ReplayFolder(path) as folder:
        for number, caption in enumerate(captions):
            for topic in topics:
                bag_time = START + number * 500_000_000
                record = CaptionRecord(bag_time, bag_time, topic, 'c', caption, 0.5, 'simple')
                timing = Timing(bag_time, 20 + number % 7, 15.0, 70.0, 110.0 + number % 3)
                folder.add(record, timing, frame_image(number))
        states = folder.topics.values()
        result = ReplayResult(
            path.name, START, True, sum(state.captions for state in states),
            sum(state.segments - 1 for state in states), problems=['it is <damaged>'])
        write_report(folder, result)
    return (path / 'report.html').read_text(encoding='utf-8')


def test_marks_changes_and_shows_one_card_for_equal_captions(tmp_path):
    page = write_folder(tmp_path / 'out', ['a cat'] * 3 + ['a red cat'] * 2 + ['a cat'])
    assert page.count('<figure id=') == 3
    assert re.findall('<mark>(.*?)</mark>', page) == ['red']
    assert '3 frames' in page and '2 changes' in page
    # The strip has a piece for each run of equal captions, the first and the third of one colour.
    colours = re.findall(r'<rect x="([\d.]+)" width="([\d.]+)"[^>]*fill="([^"]*)"', page)
    assert [float(x) for x, _, _ in colours] == [0, 600, 1000]
    assert colours[0][2] == colours[2][2] != colours[1][2]


def test_is_one_file_and_escapes_what_it_shows(tmp_path):
    page = write_folder(tmp_path / 'out', ['a <script>alert(1)</script> & "cat"', 'a dog'])
    assert 'alert(1)' in page and '<script>alert' not in page
    assert 'it is &lt;damaged&gt;' in page
    references = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', page)
    assert references
    assert all(one.startswith(('data:image/jpeg;base64,', '#')) for one, two in references
               for one in [one or two])


@pytest.mark.parametrize('count', [1, MAX_THUMBNAILS, 4000])
def test_size_is_bounded_and_pictures_spread_evenly(tmp_path, count):
    captions = [' '.join(WORDS[number // 16 ** place % 16] for place in range(3))
                for number in range(count)]
    page = write_folder(tmp_path / 'out', captions)
    kept = sorted(path.name for path in (tmp_path / 'out/thumbnails').iterdir())
    numbers = [int(name[-10:-4]) for name in kept]
    assert len(numbers) <= MAX_THUMBNAILS
    assert page.count('<figure id=') == len(numbers)
    stride = {1: 1, MAX_THUMBNAILS: 1, 4000: 64}[count]
    assert numbers == list(range(0, count, stride))
    assert len(page) < 4_000_000


def test_an_empty_replay_has_a_report(tmp_path):
    page = write_folder(tmp_path / 'out', [])
    assert 'No captions' in page


@pytest.mark.parametrize('value, expected', [
    (0, 1), (1, 1), (1.1, 1.5), (37, 40), (0.021, 0.03), (100, 100), (99, 100), (151, 200)])
def test_nice_ceiling(value, expected):
    assert nice_ceiling(value) == pytest.approx(expected)


def test_clock():
    assert [clock(s) for s in (0, 5.04, 59.97, 3599.96, 3725.5)] == [
        '0:00.0', '0:05.0', '1:00.0', '1:00:00.0', '1:02:05.5']


def test_chart_has_few_points_and_keeps_the_extremes():
    times = np.linspace(0, 100, 50_000)
    values = np.full(50_000, 10.0)
    values[12_345] = 90
    chart = line_chart('t', times, {'a': values}, 100.0, banded=True)
    assert chart.y_labels == ['100', '50', '0']
    assert len(chart.lines['a']) < 5000
    assert ' 10.0' in chart.bands['a']  # 90 of 100, from the top
    assert ' 10.0' not in chart.lines['a']  # the median does not jump


def test_thumbnails_keep_their_shape_and_colour():
    import cv2
    image = np.zeros((100, 800, 3), np.uint8)
    image[..., 0] = 255
    jpeg = cv2.imdecode(np.frombuffer(thumbnail(image), np.uint8), cv2.IMREAD_COLOR)
    assert jpeg.shape == (40, 320, 3)
    assert jpeg[20, 160, 2] > 240 and jpeg[20, 160, 0] < 15  # BGR: still red
    assert thumbnail(image[:1])  # as flat as can be


def test_page_escapes_its_title_and_wants_all_names():
    import jinja2
    assert '<h1>a &lt;b&gt;</h1>' in render_page('a <b>', '<p>{{ x }}</p>', x=1)
    with pytest.raises(jinja2.UndefinedError):
        render_page('a', '{{ x }}')


@pytest.mark.skipif(CHROMIUM is None, reason='Chromium is not installed')
def test_a_browser_shows_it_without_complaint(tmp_path):
    write_folder(tmp_path / 'out', ['a cat', 'a red cat', 'a dog'], ('/front', '/rear'))
    page = tmp_path / 'out/report.html'
    # The page's own filter, used as a reader would.
    probe = page.read_text(encoding='utf-8').replace('</body>', """<script>
      const box = document.getElementById('filter');
      box.value = 'red cat';
      box.dispatchEvent(new Event('input'));
      const shown = [...document.querySelectorAll('.gallery figure')].filter(
        card => getComputedStyle(card).display !== 'none');
      const broken = [...document.images].filter(image => !image.src.startsWith('data:'));
      document.title = `${shown.length} shown, ${broken.length} broken,`
        + ` ${document.documentElement.scrollWidth <= innerWidth}`;
    </script></body>""")
    page.with_name('probe.html').write_text(probe, encoding='utf-8')
    done = subprocess.run([
        CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
        '--no-first-run', '--disable-background-networking', '--disable-component-update',
        '--disable-sync', f'--user-data-dir={tmp_path / "profile"}', '--window-size=500,900',
        '--enable-logging=stderr', '--dump-dom', page.with_name('probe.html').as_uri()],
        capture_output=True, text=True, timeout=120, check=True)
    assert 'CONSOLE' not in done.stderr
    assert '<title>2 shown, 0 broken, true</title>' in done.stdout
