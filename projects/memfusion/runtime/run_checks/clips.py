"""Checks of a run, clips. In: a config. Out: nothing, or what gives a memory of frames fewer frames than it hands on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from .walk import at, datasets, detector, is_kind


def check_clips(cfg: Mapping[str, Any], phase: str) -> None:
    """Raises UserError where the head never sees the frames that it asks for: clips or windows are shorter than that.

    Frames that are not there yet show nothing, so nothing else would say so.
    """
    found = detector(cfg)
    if found is None or not is_kind(at(found[1], 'temporal'), 'FrameRing'):
        return
    path, model = found
    wanted = at(model, 'temporal.num_frames') or 2
    lengths = {}
    if phase == 'train':
        loader = 'train_dataloader.dataset'
        lengths = {f'{name}.seq_len': dataset.get('seq_len') for name, dataset in datasets(at(cfg, loader), loader)}
    if at(model, 'test_cfg.mode') == 'window':
        lengths[f'{path}.test_cfg.seq_len'] = at(model, 'test_cfg.seq_len')
    for name, length in lengths.items():
        if isinstance(length, int) and length < wanted:
            raise UserError(f'{name}={length} is shorter than {path}.temporal.num_frames={wanted}: earlier frames would never '
                            f'be there; set it to {wanted} at least, or fewer frames in temporal and pts_bbox_head')
