"""Checks of a run, evaluators. In: a config. Out: nothing, or both files where another split is scored than is tested."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError
from .walk import PHASES, at, datasets, evaluators


def check_evaluators(cfg: Mapping[str, Any], phase: str) -> None:
    """Raises UserError where the info file of an evaluator is not that of the data set whose predictions it gets.

    Files of the same content are the same. Loaders of several data sets, and files that are not on a disk, are left out.
    """
    for name in set(PHASES[phase]) - {'train'}:
        root = f'{name}_dataloader.dataset'
        read = list(datasets(at(cfg, root), root))
        if len(read) != 1:
            continue
        path, dataset = read[0]
        tested = _info_file(dataset)
        for where, evaluator in evaluators(cfg, name):
            scored = evaluator.get('ann_file')
            if tested and isinstance(scored, str) and '://' not in scored and not _same_file(tested, scored):
                raise UserError(f'{where}.ann_file={scored}, but {path} reads {tested}: predictions of one would be scored as '
                                "those of the other. Set the evaluator's data_root and ann_file to those of the data set")


def _info_file(dataset: Mapping[str, Any]) -> str | None:
    name, root = dataset.get('ann_file'), dataset.get('data_root') or ''
    if not isinstance(name, str) or not name or not isinstance(root, str) or '://' in f'{root}{name}':
        return None
    return os.path.join(root, name)


def _same_file(one: str, other: str) -> bool:
    if os.path.realpath(one) == os.path.realpath(other):
        return True
    # What is not there is told when it is read, by its name.
    return not (Path(one).is_file() and Path(other).is_file()) or filecmp.cmp(one, other, shallow=False)
