"""Study. In: image features, the rig, where objects are. Out: which look-alike each is, by the detectors' own attention.

A detector needs thousands of steps until it looks at images at all; told where the objects are and, in training, which token
shows each, its attention learns within hundreds to find them, which is all that a pose encoding can help with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.encodings.frustum import normalised
from projects.memfusion.fusion import fusion_state
from projects.memfusion.fusion.token_poses import token_views
from projects.memfusion.queries.decoder import Tokens
from projects.memfusion.structures import Calibration, SceneFeatures

BOX_WEIGHT = 0.2


@dataclass(frozen=True)
class Objects:
    """At most K objects of B frames: boxes (B, K, 9) with bottom centres, labels (B, K) among the look-alikes, there (B, K)
    bool; the rest of a row is a box somewhere."""

    boxes: Tensor
    labels: Tensor
    there: Tensor

    @property
    def centres(self) -> Tensor:
        """(B, K, 3) gravity centres."""
        return torch.cat([self.boxes[..., :2], self.boxes[..., 2:3] + self.boxes[..., 5:6] / 2], dim=-1)

    def loss(self, logits: Tensor) -> Tensor:
        """Mean cross-entropy of logits (B, K, classes) over the objects."""
        return F.cross_entropy(logits[self.there].float(), self.labels[self.there])


@dataclass(frozen=True)
class Look:
    """What an attention makes of K objects: logits (B, K, classes), and weights (B, K, N, h, w), the mean over its heads, of
    the tokens of N cameras; other, the loss of what else is learned."""

    logits: Tensor
    weights: Tensor
    other: Tensor | float = 0.0

    def loss(self, objects: Objects, places: Tensor) -> Tensor:
        """Of the class, and of the share of attention that the objects' own tokens get.

        Args:
            objects: whose they are.
            places: (B, N, K, 2) of the objects' centres in each image, 0..1; NaN where a camera does not see one.
        """
        shown = shown_tokens(places, self.weights.shape[-2:])
        counted = objects.there & shown.flatten(2).any(2)
        share = (self.weights * shown).flatten(2).sum(2)
        return objects.loss(self.logits) - share[counted].clamp(min=1e-6).log().mean() + self.other

    def found(self, places: Tensor) -> Tensor:
        """(B, K) bool: whether the token with the most attention shows the object's centre or lies next to one that does."""
        shown = shown_tokens(places, self.weights.shape[-2:])
        near = F.max_pool2d(shown.flatten(0, 2)[:, None].float(), 3, 1, 1)[:, 0].view_as(shown) > 0
        return near.flatten(2).gather(2, self.weights.flatten(2).argmax(2, keepdim=True))[..., 0]


def shown_tokens(places: Tensor, shape: tuple[int, ...]) -> Tensor:
    """(B, N, K, 2) -> (B, K, N, h, w) bool: the token of each camera in which a place lies."""
    rows, columns = shape
    x, y = (places[..., axis] * count for axis, count in ((0, columns), (1, rows)))
    column, row = torch.arange(columns), torch.arange(rows)[:, None]
    inside = (x[..., None, None].floor() == column) & (y[..., None, None].floor() == row)  # never where it is NaN
    return inside.transpose(1, 2)


@contextmanager
def overheard(attention: nn.Module) -> Iterator[list[tuple[tuple[Any, ...], dict[str, Any]]]]:
    """What the attention is called with meanwhile."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    handle = attention.register_forward_pre_hook(lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


class CellLook(nn.Module):
    """FuTr++'s reader: cells in which objects stand ask the camera tokens.

    Args:
        layer: FuTrPlusPlus whose sample is of kind 'tokens'.
        num_classes: look-alikes.
    """

    def __init__(self, layer: Any, num_classes: int) -> None:
        super().__init__()
        self.layer, self.classify = layer, nn.Linear(layer.sample.norm.normalized_shape[0], num_classes)

    def forward(self, bev: Tensor, levels: list[Tensor], rig: Calibration, objects: Objects) -> Look:
        """Of the objects of B frames."""
        layer, update = self.layer, self.layer.sample
        state = fusion_state.FusionState(bev, bev, levels, None, rig, rig.cam_valid.float())
        tokens = layer.geometry(layer.tokens(levels[layer.token_level], rig), rig)
        tokens = layer.token_attn(replace(tokens, views=token_views(rig, layer.tokens.grid, layer.tokens.stride)))
        height, width = bev.shape[-2:]
        low, high = (torch.tensor(layer.point_cloud_range[side:side + 2]) for side in (0, 3))
        place = ((objects.centres[..., :2] - low) / (high - low) * torch.tensor([width, height])).floor()
        place = place.clamp(min=torch.zeros(2), max=torch.tensor([width - 1.0, height - 1.0]))
        cells_m = low + (place + 0.5) * (high - low) / torch.tensor([width, height])
        index = (place[..., 1] * width + place[..., 0]).long()
        features = bev.flatten(2).gather(2, index[:, None].expand(-1, bev.shape[1], -1)).transpose(1, 2)
        query = update.content(features) + update.position(fusion_state.normalised(cells_m, layer.point_cloud_range))
        with overheard(update.reader.attention) as calls:
            reading = update.reader(query, cells_m, replace(state, tokens=tokens))
        asked, context, valid, _, encoding = calls[0][0]
        weights = update.reader.attention.weights(asked, context, valid, encoding).mean(1)
        hidden = update.norm(query + reading.features.to(query.dtype))
        logits = self.classify(hidden + update.feed_forward(hidden))
        return Look(logits, weights.unflatten(2, (levels[0].shape[1], *layer.tokens.grid)))


class QueryLook(nn.Module):
    """PETRv2's decoder: queries that begin where objects are ask image and LiDAR tokens; they learn the boxes beside the class.

    Args:
        head: PETRv2 on single frames.
        num_classes: look-alikes.
    """

    def __init__(self, head: Any, num_classes: int) -> None:
        super().__init__()
        self.head, self.classify = head, nn.Linear(head.query_embedding[-1].out_features, num_classes)

    def forward(self, bev: Tensor, levels: list[Tensor], rig: Calibration, objects: Objects) -> Look:
        """Of the objects of B frames; the weights are those of the last layer."""
        head, features = self.head, SceneFeatures(bev, tuple(levels), rig)
        images = head.image_tokens(features, ())
        tokens = Tokens.join([images, head.bev_tokens(bev, None)])
        points = normalised(objects.centres, head.point_cloud_range)
        asking = head.query_positions(points)
        attention = head.decoder.layers[-1].cross_attn
        with overheard(attention) as calls:
            queries = head.decoder(torch.zeros_like(asking), asking, tokens, None,
                                   poses=lambda: head.poses(tokens, features, (), points, None))
        (asked, keys, _), said = calls[0]
        weights = attention.weights(asked, keys, said['keep'], said['encoding']).mean(1)[..., :images.keys.shape[1]]
        codes = head.codes(torch.stack([branch(one) for branch, one in zip(head.reg_branches, queries)]), points, None)
        apart = (codes - head.code.encode(objects.boxes))[..., :8].abs().mean(-1)  # no velocities
        boxes = BOX_WEIGHT * (apart * objects.there).sum() / (len(codes) * objects.there.sum().clamp(min=1))
        return Look(self.classify(queries[-1]), weights.unflatten(2, images.places[0].shape), boxes)
