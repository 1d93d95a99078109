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

"""What `colcon test` collects where launch_testing is installed and other libraries are not."""

import os
from pathlib import Path
import re
import subprocess
import sys

from conftest import NEEDED

HERE = Path(__file__).parent
# launch_testing's plugin, as far as it matters: it imports each file before it is collected.
PLUGIN = f"""
import sys
from _pytest.pathlib import import_path
for library in {sorted(NEEDED)}:
    sys.modules[library] = None  # not to be found
def pytest_pycollect_makemodule(module_path, parent):
    import_path(module_path, root=parent.config.rootpath, consider_namespace_packages=False)
"""


def run_as_colcon(tmp_path, *options):
    """Run pytest as colcon does, but on collection alone; return exit code and output."""
    (tmp_path / 'launch_testing_plugin.py').write_text(PLUGIN)
    run = subprocess.run(
        [sys.executable, '-m', 'pytest', '-p', 'launch_testing_plugin', '--collect-only', '-q',
         '-rs', *options],
        cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, 'PYTHONPATH': f'{tmp_path}{os.pathsep}{HERE.parent}',
             'PYTEST_ADDOPTS': f'-o cache_dir={tmp_path / "cache"}'})
    return run.returncode, run.stdout


def test_every_file_is_collected_or_skips_by_itself(tmp_path):
    code, output = run_as_colcon(tmp_path)
    assert code == 0, output
    skipped = {file for files in NEEDED.values() for file in files}
    for path in HERE.glob('test_*.py'):
        assert (f'{path.name}::' in output) == (path.name not in skipped), path.name
    counts = re.findall(r'^SKIPPED \[(\d+)\]', output, re.MULTILINE)
    assert sum(map(int, counts)) == len(skipped)
    assert max(map(len, output.splitlines())) < 2000  # colcon reads no line of 64 kB


def test_a_run_of_nothing_fails(tmp_path):
    # Those are the codes after which `colcon test` ends with 0: tests failed, none collected.
    assert run_as_colcon(tmp_path, '--ignore-glob=*')[0] not in (0, 1, 5)
