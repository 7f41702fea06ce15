"""Data preprocessor. In: a collated batch of clips, B x T packed frames. Out: inputs of the valid frames, clip-major."""

from __future__ import annotations

from typing import Any

from mmdet3d.models.data_preprocessors import Det3DDataPreprocessor
from mmdet3d.registry import MODELS


@MODELS.register_module()
class ClipDataPreprocessor(Det3DDataPreprocessor):
    """mmdet3d's Det3DDataPreprocessor for clips.

    Padding is left out before voxelisation, so it never reaches a network or a BatchNorm statistic. The result is
    `inputs`: points and voxels of the V valid frames, plus `clip_shape` (B, T) and `frame_valid` (list of B x T bools);
    `data_samples`: all B x T samples, clip-major.
    """

    def forward(self, data: dict[str, Any] | list[dict[str, Any]], training: bool = False) -> dict[str, Any]:
        """`data` is what pseudo_collate makes of a batch of clips: a list of T dicts of B frames (or one such dict)."""
        steps = data if isinstance(data, list) else [data]
        clips, length = len(steps[0]['data_samples']), len(steps)
        order = [(t, b) for b in range(clips) for t in range(length)]
        samples = [steps[t]['data_samples'][b] for t, b in order]
        frame_valid = [sample.metainfo.get('frame_valid', True) for sample in samples]
        kept = [where for where, valid in zip(order, frame_valid) if valid]
        result: dict[str, Any] = {'inputs': {}, 'data_samples': self.cast_data(samples)}
        if kept:
            inputs = {name: [steps[t]['inputs'][name][b] for t, b in kept] for name in steps[0]['inputs']}
            result['inputs'] = super().forward({'inputs': inputs, 'data_samples': None}, training)['inputs']
        result['inputs'].update(clip_shape=(clips, length), frame_valid=frame_valid)
        return result
