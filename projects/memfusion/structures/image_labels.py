"""Contract, no network: what one camera's image shows. Pixels; whole numbers are pixel centres, as in Calibration.project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from projects.geometry.distortion import PINHOLE

IGNORED = 255
"""Semantic id of a pixel that is not labelled; it counts neither in a loss nor in a metric."""
STUFF_CLASSES = ('ground', 'static', 'sky')
"""Semantic classes beside the detection classes: any ground, what stands on it and is no detection class, sky."""


def semantic_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Names of the semantic ids: the detection classes in their order, then STUFF_CLASSES."""
    return (*classes, *STUFF_CLASSES)


@dataclass(frozen=True)
class ImageLabels:
    """Labels of one image, in raw or in network pixels.

    Attributes:
        boxes_px: (G, 4) float32 x1, y1, x2, y2. Edges: a box around pixels a to b reaches from a - 0.5 to b + 0.5.
        labels: (G,) int64 positions in the detection classes.
        depth_m: (G,) float32 depth of the middle of the 3-D box, along the camera's z; 0 or less where the middle of a box
            in sight lies beside or behind the camera.
        sem_seg: (h, w) uint8 semantic ids (`semantic_classes`), IGNORED where unknown; None where there are none at all.
        lens_model: of the image that the pixels belong to, a position in geometry.distortion.MODELS.
    """

    boxes_px: Tensor
    labels: Tensor
    depth_m: Tensor
    sem_seg: Tensor | None = None
    lens_model: int = PINHOLE

    @classmethod
    def empty(cls, sem_seg: Tensor | None = None, lens_model: int = PINHOLE) -> ImageLabels:
        """Labels without boxes."""
        return cls(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0), sem_seg, lens_model)

    def to(self, device: torch.device | str) -> ImageLabels:
        """The same on another device."""
        sem_seg = None if self.sem_seg is None else self.sem_seg.to(device)
        return replace(self, boxes_px=self.boxes_px.to(device), labels=self.labels.to(device),
                       depth_m=self.depth_m.to(device), sem_seg=sem_seg)
