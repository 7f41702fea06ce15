"""Every tool says how OpenMP's threads wait before torch is loaded."""

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
# the first asks for torch's version and computes nothing
WITHOUT_TORCH = {'check_env.py', 'lock.py', 'create_spatial_qa.py', 'create_synthetic_nuscenes.py'}

# Runs each tool's module level; who asks for torch is told that it is not there, after a look at the environment.
SCRIPT = """
import os, runpy, sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name == 'torch':
            seen.append(os.environ.get('OMP_WAIT_POLICY'))
            raise ImportError('no torch here')

sys.meta_path.insert(0, NoTorch())
for path in sys.argv[1:]:
    os.environ.pop('OMP_WAIT_POLICY', None)
    seen = []
    for name in [name for name in sys.modules if name.startswith(('projects', 'mmengine'))]:
        del sys.modules[name]
    try:
        runpy.run_path(path, run_name='tool')
    except ImportError as error:
        assert str(error) == 'no torch here', (path, error)
    print(os.path.basename(path), os.environ.get('OMP_WAIT_POLICY'), *seen)
"""


def test_threads_wait_passively_in_every_tool_that_loads_torch():
    tools = sorted(path for path in (REPO / 'tools').glob('*.py') if path.name not in WITHOUT_TORCH)
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', SCRIPT, *map(str, tools)], cwd=REPO, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, *_ in lines] == [path.name for path in tools]
    assert [line for line in lines if set(line[1:]) != {'PASSIVE'}] == []
    assert sum(len(line) > 2 for line in lines) >= 5  # those that load torch at once; the others do so later


def test_a_policy_of_the_users_own_stays(monkeypatch):
    from projects.common.threads import wait_passively
    monkeypatch.setenv('OMP_WAIT_POLICY', 'ACTIVE')
    wait_passively()
    assert os.environ['OMP_WAIT_POLICY'] == 'ACTIVE'
