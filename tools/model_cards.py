#!/usr/bin/env python
"""Writes docs/model_cards.md from the stored results of the studies: config, data, command, numbers, seeds, cost."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.common.threads import wait_passively

wait_passively()
os.environ.setdefault('PYTHONWARNINGS', 'ignore')

from projects.memfusion.runtime import run_cli


def main(argv: list[str] | None = None) -> None:
    root = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--results', type=Path, default=root / 'docs/results', help='folder of the stored results')
    parser.add_argument('--doc', type=Path, default=root / 'docs/model_cards.md', help='document that is written')
    args = parser.parse_args(argv)

    from projects.spatial_mllm.study.cards import spatial_cards
    from projects.studies.model_cards import Card, write_cards

    write_cards(args.results, args.doc, (Card(*card) for card in spatial_cards(args.results / 'spatial')))


if __name__ == '__main__':
    run_cli(main)
