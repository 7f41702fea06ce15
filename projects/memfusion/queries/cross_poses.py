"""Queries. In: boxes so far, rigs of the tokens. Out: pose encodings of the cross-attention, made again for every layer.

A query sees from where its box stands and along its heading, a token from its camera, a BEV cell from its centre; world is the
augmented LiDAR frame of now. Earlier frames' rigs come as seen from now (Calibration.moved).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.encodings import Views
from projects.encodings.multihead import encoding_of
from projects.encodings.view_sources import camera_views, query_views
from projects.encodings.views import join_views
from projects.geometry import cell_positions
from projects.geometry.precision import full_precision
from projects.memfusion.structures import Calibration, TokenPlaces


@dataclass(frozen=True)
class QueryPoses:
    """What a decoder's cross-attention needs to know of poses.

    Attributes:
        keys: of the tokens.
        references_m: (B, Q, 3) where the queries begin, metres, augmented LiDAR frame; headings are not known yet.
        boxes: number of a layer, what it gave (B, Q, E) -> centres (B, Q, 3), metres, headings (B, Q), radians, of its boxes.
    """

    keys: Views
    references_m: Tensor
    boxes: Callable[[int, Tensor], tuple[Tensor, Tensor]]


class CrossPoses(nn.Module):
    """Encodings of L layers.

    Args:
        settings: of build_encoding. Places within an image mean nothing to a query, so its layout is of P and I.
        num_layers, dim, num_heads: of the decoder.
    """

    def __init__(self, settings: Mapping[str, Any], num_layers: int, dim: int, num_heads: int) -> None:
        super().__init__()
        self.head_shape = (num_heads, dim // num_heads)
        made = [encoding_of(settings, dim, num_heads, layer) for layer in range(num_layers)]
        self.alike = 'layout_schedule' not in settings and not list(made[0].parameters())
        self.encodings = nn.ModuleList(made[:1] * num_layers if self.alike else made)

    def forward(self, layer: int, poses: QueryPoses, before: Any, output: Tensor | None) -> Any:
        """The encoding of a layer, bound to poses as they are now.

        Args:
            layer: its number.
            poses: of queries and tokens.
            before: what this gave for the layer before; None for the first.
            output: (B, Q, E) what the layer before gave; None for the first.
        """
        views = self._of_queries(layer, poses, output)
        if before is not None and self.alike:
            return before.with_queries(views)
        encoding: Any = self.encodings[layer]
        return encoding.bind(views, poses.keys, *self.head_shape)

    @torch.no_grad()
    def _of_queries(self, layer: int, poses: QueryPoses, output: Tensor | None) -> Views:
        centres_m, yaw_rad = (poses.references_m, None) if output is None else poses.boxes(layer - 1, output)
        now = None if poses.keys.time is None else centres_m.new_zeros(centres_m.shape[:2])
        return query_views(centres_m, yaw_rad, now)


@full_precision
def key_views(places: Sequence[TokenPlaces], rigs: Sequence[Calibration], ages_s: Sequence[Tensor], bounds: Sequence[float],
              like: Tensor) -> Views:
    """Views of tokens, in their order.

    Args:
        places: what the tokens show.
        rigs: of the frames, newest first, as seen from the newest.
        ages_s: (B,) of each frame, seconds before the newest.
        bounds: (x_min, y_min, z_min, x_max, y_max, z_max) that BEV cells divide.
        like: (B, ...), on the device.
    """
    parts = []
    for place in places:
        if len(place.shape) == 3:
            rig, age_s = rigs[place.age].views(), ages_s[place.age]
            parts.append(camera_views(rig, place.shape[1:], -age_s[:, None].expand(-1, place.shape[0])))
        else:
            centres = F.pad(cell_positions(place.shape, bounds, like.device).flatten(0, 1).float(), (0, 1))
            centres[:, 2] = (bounds[2] + bounds[5]) / 2
            cells = centres.expand(len(like), -1, -1)
            parts.append(query_views(cells, None, cells.new_zeros(cells.shape[:2])))
    return parts[0] if len(parts) == 1 else join_views(*parts)
