"""Bad input is told in one line; a defect keeps its traceback."""

import runpy
import subprocess
import sys
import warnings
from contextlib import nullcontext

import pytest
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from projects.memfusion.data.errors import BadFrameError, DataError
from projects.memfusion.data.seeding import check_classes
from projects.memfusion.runtime import UserError
from projects.memfusion.runtime.errors import explain, run_cli


def caught(function, *args):
    try:
        function(*args)
    except Exception as error:
        return error
    raise AssertionError('nothing was raised')


def load_all(raising, workers):
    """Reads a data set that fails; the workers are stopped at once, not whenever the iterator is collected."""
    iterator = iter(DataLoader(Broken(raising), num_workers=workers))
    try:
        list(iterator)
    finally:
        if workers:
            iterator._shutdown_workers()


class Broken(Dataset):
    def __init__(self, raising):
        self.raising = raising

    def __len__(self):
        return 1

    def __getitem__(self, index):
        self.raising()


def bad_frame():
    raise BadFrameError('/data/a.pcd.bin', 'is truncated', 'copy it again')


def unknown_class():
    check_classes(dict(classes=['car', 'unicorn']))


def missing_file():
    open('/nowhere/image.jpg')


def defect():
    return {}['key']


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize(('raising', 'expected'), [
    (bad_frame, '/data/a.pcd.bin is truncated; copy it again'),
    (unknown_class, 'metainfo.classes has unknown classes [\'unicorn\']'),
    (missing_file, '/nowhere/image.jpg: No such file or directory'),
])
def test_original_message_comes_first_from_workers_too(workers, raising, expected):
    error = caught(load_all, raising, workers)
    message = explain(error)
    assert message.startswith(expected)
    assert '\n' not in message and 'Traceback' not in message


@pytest.mark.parametrize('workers', [0, 1])
def test_a_defect_is_not_explained_away(workers):
    assert explain(caught(load_all, defect, workers)) is None


def test_value_errors_count_only_if_we_raised_them():
    assert explain(caught(int, 'x')) is None
    assert explain(caught(unknown_class)).startswith('metainfo.classes')
    assert explain(DataError('no table')) == 'no table'


def test_causes_are_looked_through():
    def wrapped():
        try:
            bad_frame()
        except ValueError as error:
            raise RuntimeError('library text') from error

    assert explain(caught(wrapped)).startswith('/data/a.pcd.bin')

    def nicer():
        try:
            missing_file()
        except OSError as error:
            raise UserError('better words') from error

    assert explain(caught(nicer)) == 'better words'


def test_run_cli_prints_one_line_and_exits_2(capsys, monkeypatch):
    monkeypatch.delenv('MEMFUSION_TRACEBACK', raising=False)
    with pytest.raises(SystemExit) as stop:
        run_cli(bad_frame)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == 'error: /data/a.pcd.bin is truncated; copy it again'
    assert 'MEMFUSION_TRACEBACK=1' in lines[1] and len(lines) == 2
    monkeypatch.setenv('MEMFUSION_TRACEBACK', '1')
    with pytest.raises(SystemExit):
        run_cli(bad_frame)
    err = capsys.readouterr().err
    assert err.startswith('error: /data/a.pcd.bin') and 'Traceback (most recent call last)' in err
    with pytest.raises(KeyError):
        run_cli(defect)


@pytest.mark.parametrize('raising', [None, defect, bad_frame])
def test_run_cli_leaves_the_group_that_the_tool_joined(raising):
    def join():
        dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
        if raising is not None:
            raising()

    with nullcontext() if raising is None else pytest.raises((KeyError, SystemExit)):
        run_cli(join)
    assert not dist.is_initialized()
    run_cli(lambda: None)  # without a group there is nothing to leave


@pytest.mark.parametrize(('tool', 'part'), [
    ('calibration_doctor.py', 'projects.calibration_doctor.read_data'),
    ('demo_keyframe.py', 'projects.demos.keyframe.run.run_keyframe')])
@pytest.mark.parametrize(('raising', 'code'), [(defect, 3), (bad_frame, 2)])
def test_a_defect_of_a_tool_that_judges_is_no_verdict(repo, tmp_path, monkeypatch, capsys, tool, part, raising, code):
    monkeypatch.setattr(part, lambda *args: raising())
    monkeypatch.setattr(sys, 'argv', [tool, str(tmp_path)])
    with warnings.catch_warnings(), pytest.raises(SystemExit) as stop:
        runpy.run_path(str(repo / 'tools' / tool), run_name='__main__')
    assert stop.value.code == code
    assert ('Traceback' in capsys.readouterr().err) == (code == 3)


def test_every_tool_whose_exit_code_1_is_a_verdict_is_looked_at(repo):
    judging = [path.name for path in (repo / 'tools').glob('*.py') if 'sys.exit(1)' in path.read_text()]
    assert all('defect_code=3' in (repo / 'tools' / name).read_text() for name in judging) and len(judging) >= 2


@pytest.mark.parametrize('script', ['train.py', 'test.py'])
def test_tools_say_what_is_wrong_without_a_traceback(repo, script):
    arguments = ['no_such_config.py'] + (['x.pth'] if script == 'test.py' else [])
    done = subprocess.run([sys.executable, '-W', 'ignore', repo / 'tools' / script, *arguments], capture_output=True,
                          text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == 'error: no_such_config.py: there is no such config file'
