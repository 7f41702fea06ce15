"""Queries. In: boxes to start from, their features, what the sensors show. Out: every layer's logits and boxes.

SparseBEV (Liu et al., ICCV 2023): one layer, applied again and again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn

from .sparsebev_layer import LayerSettings, SparseBEVLayer, Surroundings


class SparseBEVDecoder(nn.Module):
    """Boxes are (B, Q, 10): centre x, y, z in 0..1 of the point cloud range, logarithms of length (along the heading), width
    and height in metres, sine and cosine of the yaw, vx, vy in m/s.

    Args:
        settings: of the layer.
        num_classes, num_frames, lidar, point_cloud_range, quirks: as SparseBEVLayer.
    """

    def __init__(self, settings: LayerSettings, num_classes: int, num_frames: int, lidar: bool,
                 point_cloud_range: Sequence[float], quirks: Collection[str] = ()) -> None:
        super().__init__()
        self.num_layers = settings.num_layers
        self.decoder_layer = SparseBEVLayer(settings, num_classes, num_frames, lidar, point_cloud_range, quirks)

    def forward(self, boxes: Tensor, query: Tensor, around: Surroundings,
                allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """boxes (B, Q, 10), query (B, Q, E) -> logits (L, B, Q, K), boxes (L, B, Q, 10).

        Args:
            boxes, query: as above.
            around: what the sensors show.
            allowed: (B, Q, Q) bool, which query (row) may attend to which; None is all.
        """
        logits, better = [], []
        for _ in range(self.num_layers):
            query, scores, found = self.decoder_layer(boxes, query, around, allowed)
            boxes = found.detach()
            logits.append(scores)
            better.append(found)
        return torch.stack(logits), torch.stack(better)
