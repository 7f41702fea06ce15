"""Curves of logs by hand, of a resumed run too; what cannot be plotted is named. Configs printed by tools/print_config.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tool_mains import main_of

from projects.demos.logs import plot_logs, read_run, read_runs
from projects.memfusion.runtime import UserError
from projects.memfusion.visualization.image_files import read_rgb


def written(folder: Path, start: str, *lines: dict[str, Any]) -> Path:
    path = folder / start / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(map(json.dumps, lines)))
    return folder


def test_a_resumed_run_is_one_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path / 'run', '20260101_000000', dict(loss=4.0, time=1.0, iter=1, step=1),
                     dict(loss=3.0, time=1.0, iter=2), {'NuScenes metric/NDS': 0.2, 'step': 1})
    written(folder, '20260102_000000', dict(loss=2.0, time=3.0, iter=2), {'NuScenes metric/NDS': 0.3, 'step': 2, 'note': 'x'})
    run, start = read_run(folder), written(tmp_path / 'b', 'one', dict(loss=9.0, iter=1)) / 'one'
    for key, steps, values in (('loss', [1, 2], [4, 2]), ('NDS', [1, 2], [0.2, 0.3]), ('mAP', [], []), ('note', [], [])):
        found = run.curve(key)
        np.testing.assert_allclose(found[0], steps)
        np.testing.assert_allclose(found[1], values)
    picture = tmp_path / 'plots' / 'all.png'
    main_of('analyze_logs')([folder, start, '--keys', 'loss', 'NDS', '--names', 'run', 'other', '--out', picture])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ['run: loss last 2, lowest 2, highest 4', 'other: loss last 9, lowest 9, highest 9',
                     'run: NDS last 0.3, lowest 0.2, highest 0.3', 'run: 2 s an iteration, 2 lines of training']
    assert read_rgb(picture).std() > 5
    with pytest.raises(UserError, match='--keys mAP: no run has logged it; they have NuScenes metric/NDS, iter, loss'):
        plot_logs([run], ['mAP'], tmp_path / 'x.png')


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [written(tmp_path / place / 'run', 'start', dict(loss=value, iter=1)) for place, value in (('a', 1.0), ('b', 2.0))]
    lines = plot_logs(read_runs(paths), ['loss'], tmp_path / 'x.png')
    assert [line.partition(': ')[0] for line in lines] == [str(path) for path in paths]
    assert [run.name for run in read_runs(paths[:1])] == ['run']
    assert [run.name for run in read_runs(paths, ['p', 'q'])] == ['p', 'q']


def test_what_is_no_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='has no log of a run'):
        read_run(tmp_path)
    (tmp_path / 'scalars.json').write_text('{"iter": 1}\n{"iter"')
    with pytest.raises(UserError, match='scalars.json, line 2: not what MMEngine logs'):
        read_run(tmp_path / 'scalars.json')


def test_a_config_is_printed_with_what_it_changes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_config = main_of('print_config')
    base, leaf = tmp_path / 'base.py', tmp_path / 'leaf.py'
    base.write_text('model = dict(a=1, b=2)\n')
    leaf.write_text("_base_ = './base.py'\nmodel = dict(b=3)\n")
    print_config([leaf, '--save-path', tmp_path / 'whole.py', '--cfg-options', 'model.a=5'])
    assert capsys.readouterr().out == 'model = dict(a=5, b=3)\n\n'
    assert (tmp_path / 'whole.py').read_text() == 'model = dict(a=5, b=3)\n'
    print_config([leaf, '--diff', base])
    assert '-model = dict(a=1, b=2)\n+model = dict(a=1, b=3)' in capsys.readouterr().out
    with pytest.raises(UserError, match='there is no such config file'):
        print_config([leaf, '--diff', tmp_path / 'none.py'])
