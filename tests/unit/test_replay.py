"""tests/replay.py: every published number that is shipped is met, and it says no where it should."""

import json
from math import inf, nan
from pathlib import Path

import numpy as np
import pytest
import replay
from replays.compare import difference

REFERENCE = Path(__file__).resolve().parents[1] / 'reference'
FILES = sorted(path for path in REFERENCE.iterdir() if path.suffix != '.md')
PUBLISHED_CLIP = dict(np.load(REFERENCE / 'xmem_working_memory.npz'))


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_published_numbers_are_met(path, capsys):
    code = replay.main([str(path)])
    printed = capsys.readouterr()
    assert code == 0, printed.out + printed.err
    name, worst = printed.out.removeprefix('replay ').removesuffix(' ok\n').split(': worst=')
    assert name == path.stem and 0 <= float(worst) <= 1


def test_readme_names_every_file():
    text = (REFERENCE / 'README.md').read_text()
    assert len(FILES) >= 2 and [path.name for path in FILES if f'`{path.name}`' not in text] == []


@pytest.fixture
def clip(tmp_path):
    """A copy of the published clip, changed: clip(name of the file, array=new value)."""
    def make(name, **arrays):
        np.savez(tmp_path / name, **{**PUBLISHED_CLIP, **arrays})
        return str(tmp_path / name)
    return make


def test_a_number_off_by_more_than_its_tolerance_fails_and_is_named(clip, tmp_path, capsys):
    shorter = dict(prob=PUBLISHED_CLIP['prob'][:2], sizes=PUBLISHED_CLIP['sizes'][:2] + 1)
    hidden = PUBLISHED_CLIP['hidden'].copy()
    hidden[..., 0, 0] += 3e-3
    names = json.loads((REFERENCE / 'xmem_state_dict.json').read_text())
    other = tmp_path / 'xmem_state_dict.json'
    other.write_text(json.dumps({'of_another_network' if name == 'decoder.pred.bias' else name: shape
                                 for name, shape in names.items()}))
    assert replay.main([clip('xmem_a.npz', **shorter), clip('xmem_b.npz', hidden=hidden), str(other)]) == 1
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == 'replay xmem_a: worst=inf FAILED (sizes)'
    assert second.startswith('replay xmem_b: worst=1') and second.endswith('FAILED (hidden)')
    assert third == 'replay xmem_state_dict: worst=inf FAILED (of_another_network)'


def test_settings_of_the_file_are_followed(clip, capsys):
    """Written every frame, and consolidated: other sizes than the file's, other numbers too."""
    settings = json.dumps(dict(mem_every=1, enable_long_term=True, max_mid_term_frames=4, min_mid_term_frames=2,
                               num_prototypes=16))
    expected = [[48, 0], [96, 0], [144, 0], [96, 16], [144, 16]]
    assert replay.main([clip('xmem_long.npz', settings=settings, prob=PUBLISHED_CLIP['prob'][:5], sizes=expected)]) == 1
    assert 'FAILED (hidden)' in capsys.readouterr().out  # not the sizes, which would be inf


def test_unknown_names_and_unreadable_files_are_told_apart_from_wrong_numbers(clip, tmp_path, capsys):
    (tmp_path / 'xmem_empty.npz').write_bytes(b'')
    (tmp_path / 'xmem_broken.json').write_text('{')
    np.savez(tmp_path / 'xmem_more.npz', prob=np.zeros(1), hidden=np.zeros(1), sizes=np.zeros(1), more=np.zeros(1))
    np.savez(tmp_path / 'xmem_objects.npz', prob=np.array([{}], dtype=object), hidden=np.zeros(1), sizes=np.zeros(1))
    (tmp_path / 'xmem_list.json').write_text('{"key_proj.key_proj.weight": 64}')
    for name, message in [
        ('other.npz', 'Known starts of names: '), ('xmem_none.npz', 'no such file'),
        ('xmem_empty.npz', 'cannot be replayed'), ('xmem_broken.json', 'cannot be replayed'), ('xmem_list.json', 'its shape'),
        ('xmem_more.npz', "nothing here compares: ['more']"), ('xmem_objects.npz', 'allow_pickle'),
    ]:
        assert replay.main([str(tmp_path / name)]) == 2
        printed = capsys.readouterr()
        assert name in printed.err and message in printed.err and printed.out == '', name
    assert replay.main([clip('xmem_odd.npz', settings='{"memevery": 3}')]) == 2
    assert "unknown settings ['memevery']" in capsys.readouterr().err


def test_it_runs_from_any_folder_and_says_no_before_torch_is_loaded(tool, repo, tmp_path):
    (tmp_path / 'torch.py').write_text('raise SystemExit("torch was loaded")')
    done = tool(repo / 'tests' / 'replay.py', 'other.npz', cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2 and done.stdout == '' and 'other.npz: nothing replays' in done.stderr


@pytest.mark.parametrize('ours, published, tolerance, expected', [
    ([1.0, 2.0], [1.0, 2.5], 0.1, 5.0), ([1, 2], [1, 2], 0.0, 0.0), ([1, 2], [1, 3], 0.0, inf), ([1.0], [1.0, 1.0], 0.1, inf),
    ([nan], [1.0], 0.1, inf), ([1.0], [inf], 0.1, inf), ([nan, inf, 2.0], [nan, inf, 2.0], 0.1, 0.0), ([], [], 0.1, 0.0),
    ([True, False], [True, True], 0.5, 2.0), ([2**53 + 1], [2**53], 0.0, inf),
])
def test_difference_by_hand(ours, published, tolerance, expected):
    assert difference(np.array(ours), np.array(published), tolerance) == pytest.approx(expected)
