"""Data preprocessor. In: a collated batch of clips, B x T packed frames. Out: inputs of the valid frames, clip-major."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from mmdet3d.models.data_preprocessors import Det3DDataPreprocessor
from mmdet3d.registry import MODELS
from torch import Tensor

from projects.memfusion.structures import Calibration, CameraFrame

from .truth_checks import check_truth


@MODELS.register_module()
class ClipDataPreprocessor(Det3DDataPreprocessor):
    """mmdet3d's Det3DDataPreprocessor for clips.

    Padding is left out before voxelisation, so it never reaches a network or a BatchNorm statistic. The result is
    `inputs`: points and voxels (where frames have points) of the V valid frames, plus `clip_shape` (B, T) and `frame_valid`
    (list of B x T bools); `data_samples`: all B x T samples, clip-major.

    Where frames have cameras: `imgs` (V, N, 3, Hp, Wp) float32, normalised (mean, std, bgr_to_rgb), padded on the right and
    below by pad_value to the largest image, rounded up to pad_size_divisor; a masked camera is all 0. `calibration`: of the
    V frames, on the same device.

    `num_classes`, which the detector sets for heads that match queries and boxes, has the truth of training frames checked
    while it lies on the host.
    """

    num_classes: int | None = None

    def forward(self, data: dict[str, Any] | list[dict[str, Any]], training: bool = False) -> dict[str, Any]:
        """`data` is what pseudo_collate makes of a batch of clips: a list of T dicts of B frames (or one such dict)."""
        steps = data if isinstance(data, list) else [data]
        clips, length = len(steps[0]['data_samples']), len(steps)
        order = [(t, b) for b in range(clips) for t in range(length)]
        samples = [steps[t]['data_samples'][b] for t, b in order]
        frame_valid = [sample.metainfo.get('frame_valid', True) for sample in samples]
        kept = [where for where, valid in zip(order, frame_valid) if valid]
        if training and self.num_classes is not None:
            for sample in samples:
                check_truth(sample, self.num_classes)
        result: dict[str, Any] = {'inputs': {}, 'data_samples': self.cast_data(samples)}
        if kept:
            inputs = {name: [steps[t]['inputs'][name][b] for t, b in kept] for name in steps[0]['inputs']}
            cameras = inputs.pop('cameras', None)
            self.require_points(inputs)
            result['inputs'] = super().forward({'inputs': inputs, 'data_samples': None}, training)['inputs']
            if cameras:
                result['inputs'].update(self.stack_cameras(cameras))
        result['inputs'].update(clip_shape=(clips, length), frame_valid=frame_valid)
        return result

    def require_points(self, inputs: Mapping[str, Any]) -> None:
        """ValueError naming the keys, where voxels are asked for and the frames have no points."""
        if self.voxel and 'points' not in inputs:
            raise ValueError(
                'model.data_preprocessor.voxel=True makes voxels (voxel_layer), but the frames have no points: put '
                "LoadLidarPoints into the pipeline, 'points' into the keys of its PackClipFrame and use_lidar=True into the "
                'modality of the data set; or, for a model without LiDAR, set model.data_preprocessor.voxel=False')

    def stack_cameras(self, frames: Sequence[CameraFrame]) -> dict[str, Tensor | Calibration]:
        """`imgs` and `calibration` of V frames; images may be of any sizes.

        Raises:
            ValueError: where the frames have different cameras.
        """
        calibration = Calibration.cat([frame.calibration for frame in frames])
        there = calibration.cam_valid.tolist()  # still on the host
        sizes = torch.tensor([[image.shape[1:] for image in frame.images] for frame in frames])  # (V, N, 2)
        divisor = self.pad_size_divisor
        height, width = (-(-side // divisor) * divisor for side in sizes.flatten(0, 1).amax(0).tolist())
        stacked = torch.zeros(*sizes.shape[:2], 3, height, width, dtype=torch.uint8, pin_memory=self.device.type == 'cuda')
        for v, frame in enumerate(frames):
            for n, image in enumerate(frame.images):
                if there[v][n]:
                    stacked[v, n, :, :image.shape[1], :image.shape[2]] = image
        imgs = self._normalised(stacked.to(self.device, non_blocking=True))
        if bool((sizes != sizes.new_tensor((height, width))).any()):
            rows, columns = torch.arange(height), torch.arange(width)
            outside = (rows[:, None] >= sizes[..., :1, None]) | (columns >= sizes[..., 1:, None])  # (V, N, H, W)
            imgs.masked_fill_(outside[:, :, None].to(self.device, non_blocking=True), self.pad_value)
        if not all(map(all, there)):
            imgs.masked_fill_(~calibration.cam_valid[..., None, None, None].to(self.device, non_blocking=True), 0)
        return dict(imgs=imgs, calibration=replace(calibration, padded_hw=(height, width)).to(self.device))

    def _normalised(self, images: Tensor) -> Tensor:
        """As mmdet3d's preprocess_img, of many uint8 images at once: (..., 3, H, W) -> float32."""
        if self._channel_conversion:
            images = images.flip(-3)
        images = images.float()
        return images.sub_(self.mean).div_(self.std) if self._enable_normalize else images
