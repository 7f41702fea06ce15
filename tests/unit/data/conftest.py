"""Fixtures of the data tests: throw-away copies of the nano world, and mmdet3d's own conversion of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mmdet3d
import pytest

MINI = 'v1.0-mini'


def link_world(nano_root, target):
    """A folder like the nano world's: tables copied (tests may damage them), sensor files linked one by one."""
    for folder in ('samples', 'sweeps'):
        for channel in (path for path in sorted((nano_root / folder).iterdir()) if path.is_dir()):
            (target / folder / channel.name).mkdir(parents=True)
            for file in channel.iterdir():
                os.symlink(file.resolve(), target / folder / channel.name / file.name)
    os.symlink((nano_root / 'maps').resolve(), target / 'maps')
    (target / MINI).mkdir()
    for table in (nano_root / MINI).glob('*.json'):
        (target / MINI / table.name).write_bytes(table.read_bytes())
    return target


@pytest.fixture
def world(nano_root, tmp_path):
    """A nano world that the test may damage: files are links, so unlink one before writing to it."""
    return link_world(nano_root, tmp_path / 'world')


@pytest.fixture(scope='session')
def stock_dir(nano_root, tmp_path_factory):
    """A working directory in which mmdet3d's own create_data.py has converted ./data/nuscenes."""
    tools = Path(mmdet3d.__file__).parent / '.mim' / 'tools'
    if not (tools / 'create_data.py').is_file():
        pytest.skip('this mmdet3d is installed without its tools')
    cwd = tmp_path_factory.mktemp('stock')
    link_world(nano_root, cwd / 'data' / 'nuscenes')
    command = [sys.executable, str(tools / 'create_data.py'), 'nuscenes', '--root-path', './data/nuscenes',
               '--out-dir', './data/nuscenes', '--extra-tag', 'nuscenes', '--version', MINI]
    done = subprocess.run(command, cwd=cwd, env={**os.environ, 'PYTHONPATH': str(tools.parent)}, capture_output=True,
                          text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return cwd


@pytest.fixture
def edit_table():
    """A function that rewrites one table of a world: `edit_table(world, name, function of the records)`."""
    def edit(root, name, change, version=MINI):
        path = root / version / f'{name}.json'
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return edit
