"""Detector. In: what the single-frame stack made of B clips of T frames. Out: the features of any of their frames, by place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from projects.memfusion.structures import Calibration, SceneFeatures, take_rows


@dataclass(frozen=True)
class EncodedImages:
    """Image features of V frames.

    Attributes:
        levels: (V, N, C, h, w) each; zeros where a camera is missing.
        calibration: of the V frames.
        rows: where the V frames stand among the B x T, clip-major, in rising order.
        aux: what the fusion layer keeps for its loss; None without one.
    """

    levels: list[Tensor]
    calibration: Calibration
    rows: tuple[int, ...]
    aux: Any = None

    def take(self, rows: Sequence[int]) -> EncodedImages:
        """Those of the frames that stand at `rows` among the B x T; what has no images here is left out."""
        wanted = set(rows)
        at = [i for i, row in enumerate(self.rows) if row in wanted]
        if len(at) == len(self.rows):
            return self
        aux = None if self.aux is None else {name: take_rows(value, at) for name, value in self.aux.items()}
        return EncodedImages([take_rows(level, at) for level in self.levels],
                             self.calibration.select(at), tuple(self.rows[i] for i in at), aux)

    def blank(self) -> EncodedImages:
        """One frame of these shapes and cameras that shows nothing: zeros, no camera."""
        calibration = self.calibration.select([0]).without_cameras()
        return EncodedImages([torch.zeros_like(level[:1]) for level in self.levels], calibration, (-1,))

    def at(self, rows: Sequence[int]) -> tuple[tuple[Tensor, ...], Calibration]:
        """Levels and calibration of the frames at `rows`, in this order; the last frame in place of those that are missing."""
        known = {row: i for i, row in enumerate(self.rows)}
        at = [known.get(row, len(self.rows) - 1) for row in rows]
        return tuple(take_rows(level, at) for level in self.levels), self.calibration.select(at)

    def join(self, other: EncodedImages) -> EncodedImages:
        """These frames and then those of `other`, without what the fusion layer keeps."""
        levels = [torch.cat(pair) for pair in zip(self.levels, other.levels)]
        return EncodedImages(levels, Calibration.cat([self.calibration, other.calibration]), (*self.rows, *other.rows))


@dataclass(frozen=True)
class EncodedClip:
    """What the single-frame stack makes of B clips.

    Attributes:
        bev: (B, T, C, H, W), zeros where a frame is padding; None without BEV features.
        observed: (B, T, 1, H, W) bool, cells that hold a point; None without LiDAR.
        valid: B x T bools on the host; False where a frame is padding.
        images: of the valid frames that learn; None without cameras.
        context: images of the frames before them, which were encoded without gradient; None where there are none.
        blank: one frame of image features that shows nothing, for steps in which no frame has images.
        fused: (B, T) bool, frames whose cameras wrote into the BEV; None where cameras do not.
    """

    bev: Tensor | None
    observed: Tensor | None
    valid: tuple[tuple[bool, ...], ...]
    images: EncodedImages | None = None
    context: EncodedImages | None = None
    blank: EncodedImages | None = None
    fused: Tensor | None = None

    @property
    def length(self) -> int:
        """T."""
        return len(self.valid[0])

    def after(self, before: EncodedClip, context: int) -> EncodedClip:
        """This clip with its first `context` frames taken from `before`; losses see only the images encoded here."""
        def join(name: str) -> Tensor | None:
            mine, theirs = getattr(self, name), getattr(before, name)
            return None if mine is None else torch.cat([theirs[:, :context], mine[:, context:]], dim=1)

        valid = tuple((*old[:context], *new[context:]) for old, new in zip(before.valid, self.valid))
        return EncodedClip(join('bev'), join('observed'), valid, self.images, before.images, self.blank or before.blank,
                           join('fused'))

    def at(self, t: int, levels: bool = False) -> SceneFeatures:
        """The features of time step t; those of the images only where `levels` says that somebody reads them."""
        rows = [b * self.length + t for b in range(len(self.valid))]
        bev = None if self.bev is None else self.bev[:, t]
        observed = None if self.observed is None else self.observed[:, t]
        fused = None if self.fused is None else self.fused[:, t]
        return self._with_images(SceneFeatures(bev, observed=observed, fused=fused), rows, levels or self.bev is None)

    def frames(self, rows: Sequence[int], levels: bool = False) -> SceneFeatures:
        """The features of the frames at `rows` among the B x T; as `at`."""
        bev = None if self.bev is None else take_rows(self.bev.flatten(0, 1), rows)
        observed = None if self.observed is None else take_rows(self.observed.flatten(0, 1), rows)
        fused = None if self.fused is None else take_rows(self.fused.flatten(0, 1), rows)
        return self._with_images(SceneFeatures(bev, observed=observed, fused=fused), rows, levels or self.bev is None)

    def _with_images(self, features: SceneFeatures, rows: Sequence[int], levels: bool) -> SceneFeatures:
        seen = [images for images in (self.images, self.context) if images is not None and images.rows]
        parts = seen or [blank for blank in (self.blank,) if blank is not None]
        if not levels or not parts:
            return features
        images = next((part for part in parts if set(rows) <= set(part.rows)), None)
        if images is None:  # of both, or some frames have none: what shows nothing stands last
            images = reduce(EncodedImages.join, [*seen, seen[0].blank()] if seen else parts)
        shown, calibration = images.at(rows)
        return replace(features, levels=shown, calibration=calibration)
