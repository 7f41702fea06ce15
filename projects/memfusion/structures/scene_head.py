"""Contract, no network: what the detector asks of a 3-D head. In: SceneFeatures, what the past adds. Out: losses, boxes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from mmengine.structures import InstanceData

from .features import Readout, SceneFeatures, SceneTruth


class SceneHead:
    """What the detector asks of a 3-D head: a head of one's own derives from it, others have an adapter.

    Attributes:
        needs_levels: whether it reads image features beside those of the BEV.
        read_levels: positions of the image levels that it reads; None is all.
        bev_channels: C of the BEV features that it reads; None where it reads none.
        reads: which of 'past' and 'queries' of a Readout it asks for; None is not said, and not checked.
        matched_classes: K of a head that matches boxes, whose truth must be sound: finite boxes with sizes, labels below K.
            None is any truth.
    """

    needs_levels: bool = False
    read_levels: Sequence[int] | None = None
    bev_channels: int | None = None
    reads: Collection[str] | None = None
    matched_classes: int | None = None

    def forward(self, features: SceneFeatures, readout: Readout, truth: SceneTruth | None) -> Any:
        """Outputs for B frames.

        Args:
            features: of the frames.
            readout: what the past adds; empty without memory.
            truth: what training knows, e.g. for denoising queries; None in eval mode.
        """
        raise NotImplementedError

    def loss_by_feat(self, outputs: Any, samples: Sequence[Any]) -> dict[str, Any]:
        """Losses of V labelled frames (Det3DDataSample), tensors or lists of them.

        `outputs` may be changed, so nobody decodes them after.
        """
        raise NotImplementedError

    def predict_by_feat(self, outputs: Any, metas: Sequence[Mapping[str, Any]]) -> list[InstanceData]:
        """B x (bboxes_3d, scores_3d, labels_3d); the metas say box_type_3d."""
        raise NotImplementedError
