"""Export. In: items of a config's test set. Out: what an exported detector is given of them, as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.dataset import pseudo_collate

from projects.memfusion.runtime.errors import UserError

from .graphs import RIG
from .streaming import Arrays


def packed_frame(item: Any) -> Any:
    """The only frame of a test item, as PackClipFrame packs it.

    Raises:
        UserError: for an item of several frames.
    """
    frames = item if isinstance(item, list) else [item]
    if len(frames) != 1:
        raise UserError(f'the test set gives clips of {len(frames)} frames: an exported detector takes one at a time; set '
                        'test_dataloader.dataset.seq_len=1')
    return frames[0]


def frame_arrays(item: Any) -> Arrays:
    """points (P, D), time_s, global_from_lidar (4, 4) and is_scene_start of a test item; of its cameras images (N, 3, h, w)
    uint8 and RIG, (N, 4, 4) each.

    Raises:
        UserError: where its frame is turned or mirrored (test-time augmentation), a camera is missing or images differ in size;
            as `packed_frame`.
    """
    packed = packed_frame(item)
    meta = packed['data_samples'].metainfo
    if not np.array_equal(meta['bev_aug'], np.eye(4)):
        raise UserError('the test pipeline turns or mirrors the points: an exported detector takes them as they are')
    arrays: Arrays = dict(
        time_s=np.array(meta['timestamp_s'], dtype=np.float64), is_scene_start=np.array(meta['is_scene_start'], dtype=bool),
        global_from_lidar=np.asarray(meta['global_from_lidar'], dtype=np.float64))
    inputs = packed['inputs']
    if 'points' in inputs:
        arrays['points'] = inputs['points'].numpy()
    if 'cameras' in inputs:
        arrays |= _camera_arrays(inputs['cameras'])
    return arrays


def _camera_arrays(cameras: Any) -> Arrays:
    rig = cameras.calibration
    missing = [name for name, there in zip(rig.cam_names, rig.cameras_there) if not there]
    if missing:
        raise UserError(f'cameras {missing} are missing in a frame: an exported detector takes all cameras of its rig')
    sizes = {tuple(image.shape[1:]) for image in cameras.images}
    if len(sizes) > 1:
        raise UserError(f'the images are of {len(sizes)} sizes, {sorted(sizes)} (height, width): an exported detector takes '
                        'them as one array; resize them alike in the test pipeline')
    return dict(images=np.stack([image.numpy() for image in cameras.images]),
                **{name: getattr(rig, name)[0].numpy() for name in RIG})


def batch_of(item: Any) -> Any:
    """The item as the test loader batches it."""
    return pseudo_collate([item])
