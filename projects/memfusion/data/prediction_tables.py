"""Stage data: what nuScenes' prediction challenge needs of a data set. In: its folder. Out: the devkit's helper, tokens."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from mmdet3d.registry import TASK_UTILS
from nuscenes.eval.prediction.splits import get_prediction_challenge_split
from nuscenes.prediction import PredictHelper

from .errors import DataError
from .nuscenes_tables import open_nuscenes

PREDICTION_SPLITS = ('train', 'train_val', 'val', 'mini_train', 'mini_val')
SPLIT_FILE = 'maps/prediction/prediction_scenes.json'


@TASK_UTILS.register_module()
def prediction_helper(data_root: str, version: str) -> PredictHelper:
    """The devkit's PredictHelper of a data set: read once in a process, whoever asks (data sets, and by the
    registry the metric).

    Raises:
        DataError: for a missing folder or table, or tables that contradict each other; it is named.
    """
    return _helper(os.path.abspath(data_root), version)


@lru_cache(maxsize=2)
def _helper(data_root: str, version: str) -> PredictHelper:
    return PredictHelper(open_nuscenes(Path(data_root), version))


def prediction_tokens(data_root: str, split: str) -> list[str]:
    """The tokens `instance_sample` of a split, as the devkit's `get_prediction_challenge_split` lists them.

    Raises:
        ValueError: for a split that the challenge does not have.
        DataError: naming the file, where it is missing or unreadable, or has no token for the scenes of the split.
    """
    if split not in PREDICTION_SPLITS:
        raise ValueError(f'split must be one of {", ".join(PREDICTION_SPLITS)}, got {split!r}')
    path = Path(data_root) / SPLIT_FILE
    remedy = ("unpack nuScenes' map expansion (v1.3), which holds it, into maps/, or make a synthetic world that has it with "
              'tools/create_synthetic_nuscenes.py --preset forecast')
    try:
        tokens = get_prediction_challenge_split(split, dataroot=data_root)
    except OSError as error:
        raise DataError(f'cannot read {path} ({error.strerror}), the splits of the prediction challenge: {remedy}') from error
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise DataError(f'{path} is not {{scene name: [instance_sample, ...]}} ({error}): {remedy}') from error
    if not tokens:
        raise DataError(f'{path} has no agent for the scenes of split {split!r} (the devkit takes them by name from its own '
                        f'train and val scenes): choose a split whose scenes are there')
    return tokens


def chosen_tokens(tokens: Sequence[str], chosen: Sequence[str], split: str) -> list[str]:
    """The chosen tokens, in the split's order; all where none is chosen. ValueError naming one that the split does not have."""
    unknown = set(chosen) - set(tokens)
    if unknown:
        raise ValueError(f'token {min(unknown)} is not in split {split!r} of {SPLIT_FILE}, which has {len(tokens)} tokens')
    return [token for token in tokens if token in set(chosen)] if chosen else list(tokens)
