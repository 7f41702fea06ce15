"""Study. In: stored features of LiDAR and images, truth. Out: batches of frames with the look-alikes that their cameras see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from mmdet3d.structures import Det3DDataSample
from torch import Tensor

from projects.geometry import pad_rows
from projects.memfusion.structures import Calibration
from projects.studies.fusion.rows import LOOKALIKES, RANGE_M
from projects.studies.memory.cache import FeatureCache

from .images import SeenImages
from .look import Objects


@dataclass(frozen=True)
class Batch:
    """B frames: bev (B, C, H, W), levels, rig (as the detector is told it), objects, and places (B, N, K, 2) of
    their centres in the images by the true rig, 0..1; NaN where a camera does not see one."""

    bev: Tensor
    levels: list[Tensor]
    rig: Calibration
    objects: Objects
    places: Tensor


@dataclass(frozen=True)
class PosedFrames:
    """Stored features of N frames.

    Attributes:
        cache: of the LiDAR.
        images: of the same frames, in the same order.
        classes: names of the labels.
        noise: (N, cameras, 4, 4), the error that the rig is told with; None is none.
        donor: for each frame, whose images it gets with their rig; None is its own.
    """

    cache: FeatureCache
    images: SeenImages
    classes: Sequence[str]
    noise: Tensor | None = None
    donor: Sequence[int] | None = None

    def batch(self, variants: Sequence[int], ends: Sequence[int]) -> Batch:
        """Frames `ends`, each in one of the augmented variants."""
        samples = [self.cache.samples[variant][end] for variant, end in zip(variants, ends)]
        shown = ends if self.donor is None else [self.donor[end] for end in ends]
        levels, rig = self.images.take([variant % len(self.images.rigs) for variant in variants], shown)
        bev_aug = torch.stack([torch.as_tensor(sample.metainfo['bev_aug'], dtype=torch.float32) for sample in samples])
        rig = replace(rig, bev_aug=bev_aug)
        objects = objects_of(samples, self.classes)
        uv_px, _, seen = rig.project(objects.centres)
        places = (uv_px + 0.5) / rig.img_hw.flip(-1)[:, :, None]
        places = torch.where(seen[..., None], places, torch.nan)
        if self.noise is not None:
            rig = rig.with_noise(self.noise[list(ends)])
        return Batch(self.cache.bev[list(variants), list(ends)].float(), levels, rig, objects, places)


def objects_of(samples: Sequence[Det3DDataSample], classes: Sequence[str]) -> Objects:
    """The look-alikes nearer than RANGE_M, with LiDAR points where that is known; labels are places in LOOKALIKES."""
    boxes, labels = [], []
    known = torch.full((len(classes) + 1,), -1)
    for place, name in enumerate(LOOKALIKES):
        known[list(classes).index(name)] = place
    for sample in samples:
        info = sample.eval_ann_info if 'bboxes_3d' not in sample.gt_instances_3d else None
        truth = info['gt_bboxes_3d'].tensor if info else sample.gt_instances_3d.bboxes_3d.tensor
        label = known[torch.as_tensor(info['gt_labels_3d'] if info else sample.gt_instances_3d.labels_3d)]
        kept = (label >= 0) & (truth[:, :2].norm(dim=1) < RANGE_M)
        if info:
            kept &= torch.as_tensor(info['num_lidar_pts']) > 0
        boxes.append(truth[kept].float())
        labels.append(label[kept])
    padded, there = pad_rows(boxes)
    fill = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    padded = torch.where(there[..., None], padded, fill)
    number = torch.zeros_like(there, dtype=torch.long)
    number[there] = torch.cat(labels)
    return Objects(padded, number, there)
