"""Heads, base class. In: image features per level (V, N, C, h, w) or BEV features (V, C, H, W). Out: losses; sample fields.

V counts the frames that are there and labelled; it may be 0. N counts the cameras of the rig, missing ones included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseModule
from torch import Tensor

from projects.memfusion.structures import Calibration
from projects.memfusion.structures.image_labels import ImageLabels

NEEDS = ('img', 'bev')


class TaskHead(BaseModule):
    """A head beside the 3-D boxes: says which features it needs, gives losses, writes predictions on the samples.

    Every call of `loss` puts all parameters into the graph and does the same collective operations, whatever was labelled
    (no object, no camera, no frame), so that DDP runs with `find_unused_parameters=False`. Losses are normalised over all
    ranks: ranks with unequal shares of the objects have the mean that one process with all of them has.

    Args:
        loss_weight: multiplies all losses of the head.

    Attributes:
        needs: 'img' or 'bev'.
        field: of the samples, where predictions go.
        read_levels: with needs='img', positions of the levels that the head reads; None is all.
    """

    needs: ClassVar[str]
    field: str
    read_levels: Sequence[int] | None = None

    def __init__(self, loss_weight: float = 1.0, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        name = type(self).__name__
        if getattr(self, 'needs', None) not in NEEDS:
            raise TypeError(f'{name}.needs must be one of {NEEDS}')
        if loss_weight < 0:
            raise ValueError(f'{name}: loss_weight must not be negative, got {loss_weight}')
        self.loss_weight = loss_weight

    def loss(self, feats: Any, samples: Sequence[Det3DDataSample], calibration: Calibration | None) -> dict[str, Tensor]:
        """The head's losses, weighted.

        Args:
            feats: levels of (V, N, C, h, w) for needs='img', (V, C, H, W) for needs='bev'.
            samples: V labelled frames.
            calibration: their cameras, B = V; needs='bev' does without.
        """
        losses = self.compute_losses(feats, samples, calibration)
        return {name: self.loss_weight * value for name, value in losses.items()}

    def compute_losses(self, feats: Any, samples: Sequence[Det3DDataSample], calibration: Any) -> dict[str, Tensor]:
        """The losses before `loss_weight`; arguments as in `loss`."""
        raise NotImplementedError

    def predict(self, feats: Any, samples: Sequence[Det3DDataSample], calibration: Any) -> None:
        """Writes the head's field on every sample, on the features' device; arguments as in `loss`, labels not needed."""
        raise NotImplementedError


def camera_labels(samples: Sequence[Det3DDataSample], calibration: Calibration) -> list[ImageLabels | None]:
    """V x N labels, camera fastest; None where nobody labelled an image. Masked cameras may have some, which do not count.

    Raises:
        ValueError: naming the sample, where it has no `gt_img_labels` or not one per camera.
    """
    rows: list[ImageLabels | None] = []
    for sample in samples:
        token = sample.metainfo.get('sample_token', '(no token)')
        labels = sample.get('gt_img_labels')
        if labels is None:
            raise ValueError(f'sample {token}: no gt_img_labels, which an image head learns from: put LoadImageLabels into '
                             'the training pipeline, or leave the head out')
        if len(labels) != len(calibration.cam_names):
            raise ValueError(f'sample {token}: gt_img_labels of {len(labels)} cameras, but the calibration has '
                             f'{calibration.cam_names}')
        rows += labels
    return rows


def pick_level(feats: Sequence[Tensor], level: int, head: str) -> Tensor:
    """The image features of one level, (V, N, C, h, w); ValueError naming the head where there is no such level."""
    if not 0 <= level < len(feats):
        raise ValueError(f'{head}: level {level} asked for, but img_neck gives {len(feats)} levels (0 is the first)')
    return feats[level]
