"""Model cards: what is stored is told with its seeds, what is not says so, and the committed page has every system."""

from __future__ import annotations

import json
import re

import pytest

from projects.studies.compare.rows import ROWS
from projects.studies.fusion.results import cell
from projects.studies.memory import copying
from projects.studies.model_cards import memory_cards, write_cards
from projects.studies.nuscenes_runs import RUNS


def test_cards_by_hand(tmp_path):
    fusion = tmp_path / 'fusion'
    fusion.mkdir()
    row = ROWS[2].name
    for seed, value in ((0, 20.0), (3, 22.0)):
        worlds = [dict(mAP=value - 1, NDS=30.0), dict(mAP=value + 1, NDS=30.0)]
        (fusion / f'{row}-{seed}.json').write_text(json.dumps(dict(steps=100, frames_a_step=2, worlds=worlds)))
    cost = dict(parameters=32_100_000, flops=3.17e11, cpu_s=6.1, peak_bytes=712_000_000, machine='a CPU')
    (fusion / f'{row}-cost.json').write_text(json.dumps(cost))
    doc = tmp_path / 'cards.md'
    assert write_cards(tmp_path, doc) == len(ROWS) + len(copying.ROWS) + len(RUNS)
    card = next(part for part in doc.read_text().split('\n## ') if part.startswith('FuTr++\n'))
    assert '| numbers | mAP 21.0 ± 1.0, NDS 30.0 ± 0.0 (percent, mean of the worlds) |' in card and '| seeds | 0, 3 |' in card
    assert '32.1 M parameters, 317 GFLOPs, 6.1 s and 712 MB a frame on a CPU' in card and '| training | 100 x 2 ' in card
    assert doc.read_text().count('| seeds | not run |') == len(ROWS) + len(copying.ROWS) + len(RUNS) - 1
    assert cell([]) == '-' and cell([1.0]) == '1.0'


def test_a_broken_result_is_named(tmp_path):
    (tmp_path / 'copy-0.json').write_text('{')
    with pytest.raises(ValueError, match='copy-0.json: is no result of a study'):
        list(memory_cards(tmp_path))


def test_the_committed_page_has_every_system(repo):
    page = (repo / 'docs' / 'model_cards.md').read_text()
    titles = [row.title for row in ROWS] + [f'nuScenes: {run.name}' for run in RUNS]
    assert [title for title in titles if f'\n## {title}\n' not in page] == []
    assert page.count('\n## Memory: ') >= 6
    configs = re.findall(r'`(configs/\S+\.py)`', page)
    assert len(configs) > 30 and [path for path in configs if not (repo / path).is_file()] == []
