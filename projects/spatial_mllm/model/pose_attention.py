"""Spatial: model. In: the library's attention, poses of its tokens. Out: the same attention with camera poses in its scores.

The library's projections, norms, rotation and kernels are used as they are; what is put between them is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import eager_attention_forward

from projects.encodings import Views, build_encoding
from projects.encodings.alibi_factors import FACTORS, MULTIPLE

MODES = ('replace', 'append', 'bias', 'still')

@dataclass(frozen=True)
class PoseSettings:
    """How poses enter the attention.

    Args:
        mode: 'replace': P takes the rotary channels of time; 'append': new channels of queries and keys, whose key projection
            starts at zero, so that nothing changes before training; 'bias': logits lose by angle and distance of the cameras
            (Pose-ALiBi, factored), and nothing is learnt; 'still': time's channels do not turn, and poses play no part.
        channels: of each head that P acts on, or that stand still; None is all of time's, or a quarter of the head ('append').
        heads: query heads with poses, whole groups that share keys; None is all.
        layers: numbers of the layers with poses; None is all.
        intrinsics: whether P has the camera's K.
        values: whether values and outputs are transformed too; 'replace' only.
        rotation, distance: weights of 'bias'.
        convention, trans_norm, trans_scale: see projects.encodings.
    """

    mode: str = 'replace'
    channels: int | None = None
    heads: tuple[int, ...] | None = None
    layers: tuple[int, ...] | None = None
    intrinsics: bool = True
    values: bool = False
    convention: str = 'gta'
    trans_norm: str = 'fixed'
    trans_scale: float | None = None
    rotation: float = 1.0
    distance: float = 1.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f'pose.mode must be one of {", ".join(MODES)}, got {self.mode!r}')
        if self.mode != 'replace' and self.values:
            raise ValueError(f"pose.values: mode {self.mode!r} leaves values alone; 'replace' does not")
        if self.channels is not None and (self.channels < 4 or self.channels % 4):
            raise ValueError(f'pose.channels={self.channels} must be a multiple of 4')
        for name in ('heads', 'layers'):
            given: Sequence[int] | None = getattr(self, name)
            if given is not None:
                if not given or sorted(set(given)) != list(given) or given[0] < 0:
                    raise ValueError(f'pose.{name} must be rising numbers from 0, got {given}')
                object.__setattr__(self, name, tuple(given))


@dataclass(frozen=True)
class AttentionShape:
    """What differs between the families of models.

    Args:
        heads, key_heads, head_dim: of the attention.
        sections: channel pairs of time, height and width.
        interleaved: whether the axes take turns (Qwen3-VL) or lie side by side (Qwen2.5-VL).
        rotate: (q, k, cos, sin) -> q, k.
    """

    heads: int
    key_heads: int
    head_dim: int
    sections: tuple[int, int, int]
    interleaved: bool
    rotate: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

    def time_pairs(self) -> list[int]:
        """Channel pairs (i, i + head_dim / 2) that turn with time."""
        if not self.interleaved:
            return list(range(self.sections[0]))
        others = {pair for axis in (1, 2) for pair in range(axis, 3 * self.sections[axis], 3)}
        return [pair for pair in range(self.head_dim // 2) if pair not in others]

    def pose_channels(self, count: int | None) -> list[int]:
        """The channels that P takes from time, `count` of them or as many fours as there are.

        Raises:
            ValueError: time has fewer.
        """
        pairs = self.time_pairs()
        count = len(pairs) // 2 * 4 if count is None else count
        if not 0 < count <= 2 * len(pairs):
            raise ValueError(f'pose.channels={count}: time has {2 * len(pairs)} rotary channels of {self.head_dim}, and poses '
                             'take four at a time')
        return [pair + half for half in (0, self.head_dim // 2) for pair in pairs[:count // 2]]

    def key_heads_of(self, heads: Sequence[int] | None) -> list[int] | None:
        """The key heads that these query heads share.

        Raises:
            ValueError: there is no such head, or a group is not whole.
        """
        if heads is None:
            return None
        each = self.heads // self.key_heads
        groups = sorted({head // each for head in heads})
        if groups[-1] >= self.key_heads or len(groups) * each != len(heads):
            raise ValueError(f'pose.heads={tuple(heads)}: must be whole groups of {each} of the {self.heads} query heads that '
                             'share keys')
        return groups


class PosePlan:
    """Which channels of which heads carry poses, in all layers that do.

    Args:
        settings: what the config wants.
        shape: of the model's attention.
    """

    def __init__(self, settings: PoseSettings, shape: AttentionShape) -> None:
        self.settings, self.shape = settings, shape
        self.heads = None if settings.heads is None else list(settings.heads)
        self.key_heads = shape.key_heads_of(settings.heads)
        self.head_count, self.key_head_count = (
            (shape.heads, shape.key_heads) if self.heads is None else (len(self.heads), len(self.key_heads or ())))
        self.taken: list[int] = []
        self.added = 0
        if settings.mode == 'append':
            self.added = settings.channels or max(4, shape.head_dim // 16 * 4)
        elif settings.mode == 'bias':
            self.added = FACTORS + -(shape.head_dim + FACTORS) % MULTIPLE
        else:
            self.taken = shape.pose_channels(settings.channels)
        self.width = self.added if settings.mode == 'append' else shape.head_dim
        """Channels of a head that the encoding sees."""

    def encoding(self) -> Any:
        """A module: P of the tokens' cameras on the first channels. Scenes are relative to their first cameras already."""
        settings = self.settings
        if settings.mode == 'still':
            return build_encoding(dict(type='none'))
        if settings.mode == 'bias':
            return build_encoding(dict(type='PoseALiBi', form='factored', rotation=settings.rotation,
                                       distance=settings.distance, trans_norm=settings.trans_norm,
                                       trans_scale=settings.trans_scale))
        channels = len(self.taken) or self.width
        layout = f'P{channels}' + (f' I{self.width - channels}' if self.width > channels else '')
        return build_encoding(dict(type='CaPE6', layout=layout, intrinsics=settings.intrinsics, values=settings.values,
                                   convention=settings.convention, trans_norm=settings.trans_norm,
                                   trans_scale=settings.trans_scale, reference='world'))

    def bind(self, encoding: Any, views: Views | None, device: torch.device) -> BoundPoses:
        """Once for all layers of a forward pass; views None: no token has a pose."""
        order = self.taken + sorted(set(range(self.shape.head_dim)) - set(self.taken))

        def index(numbers: list[int]) -> Tensor:
            return torch.tensor(numbers, device=device)

        queries, keys = (None if views is None else encoding.bind(views, None, count, self.width)
                         for count in (self.head_count, self.key_head_count))
        return BoundPoses(queries, keys, None if self.heads is None else index(self.heads),
                          None if self.key_heads is None else index(self.key_heads), index(self.taken), index(order))


@dataclass(frozen=True, eq=False)
class BoundPoses:
    """The encoding of a batch's views for query heads and key heads (None: no token has a pose), which heads and channels."""

    queries: Any
    keys: Any
    heads: Tensor | None
    key_heads: Tensor | None
    taken: Tensor
    order: Tensor


class PoseAttention(nn.Module):
    """Takes the library's attention over; parameters keep their names, 'append' adds `pose_q` and `pose_k`.

    Args:
        attention: of a layer of the library.
        plan: what poses do.
    """

    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    o_proj: nn.Linear

    def __init__(self, attention: nn.Module, plan: PosePlan) -> None:
        super().__init__()
        for name, part in attention.named_children():
            self.add_module(name, part)
        self.config: Any = attention.config
        self.layer_idx, self.is_causal = attention.layer_idx, True
        self.scaling, self.attention_dropout = plan.shape.head_dim ** -0.5, attention.attention_dropout
        self.num_key_value_groups = plan.shape.heads // plan.shape.key_heads
        self.sliding_window = getattr(attention, 'sliding_window', None)
        self.plan = plan
        if plan.settings.mode == 'append':
            self.pose_q = nn.Linear(self.q_proj.in_features, plan.head_count * plan.added, bias=False)
            self.pose_k = nn.Linear(self.q_proj.in_features, plan.key_head_count * plan.added, bias=False)
            self.reset()

    def reset(self) -> None:
        """The new key projection is zero: an exact no-op, which learns because the queries are not."""
        if self.plan.settings.mode == 'append':
            nn.init.normal_(self.pose_q.weight, std=self.pose_q.in_features ** -0.5)
            nn.init.zeros_(self.pose_k.weight)

    def forward(self, hidden_states: Tensor, position_embeddings: tuple[Tensor, Tensor], pose: BoundPoses,
                attention_mask: Tensor | None = None, past_key_values: Any = None, cache_position: Tensor | None = None,
                **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Hidden states (B, n, D) -> the same, and the weights where the kernel gives them.

        Args:
            hidden_states: of n new tokens.
            position_embeddings: cosines and sines of the library's rotary positions.
            pose: of the new tokens.
            attention_mask, past_key_values, cache_position: the library's; the cache keeps transformed keys and values.
            kwargs: what the library's kernel takes.
        """
        q, k, v = self._project(hidden_states)
        if self.plan.added:
            q, k = self.plan.shape.rotate(q, k, *position_embeddings)
            q, k = self._appended(q, k, hidden_states, pose)
        else:
            q, k, v = self._replaced(q, k, v, position_embeddings, pose)
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, self.layer_idx, dict(cache_position=cache_position))
        width = v.shape[-1]
        v = F.pad(v, (0, k.shape[-1] - width))  # kernels for flash attention want one width
        name = self.config._attn_implementation
        kernel = eager_attention_forward if name == 'eager' else ALL_ATTENTION_FUNCTIONS[name]
        read, weights = kernel(self, q, k, v, attention_mask, dropout=self.attention_dropout if self.training else 0.0,
                               scaling=self.scaling, sliding_window=self.sliding_window, **kwargs)
        read = read[..., :width]
        if self.plan.settings.values and pose.queries is not None:
            read = on_heads(read.transpose(1, 2), pose.heads, pose.queries.outputs).transpose(1, 2)
        return self.o_proj(read.flatten(2)), weights

    def _project(self, hidden: Tensor) -> list[Tensor]:
        """(B, heads or key heads, n, head dim) of queries, keys, values."""
        heads = [layer(hidden).unflatten(-1, (-1, self.plan.shape.head_dim))
                 for layer in (self.q_proj, self.k_proj, self.v_proj)]
        norms = [part for name, part in self.named_children() if name in ('q_norm', 'k_norm')]  # Qwen3-VL
        heads[:len(norms)] = [norm(part) for norm, part in zip(norms, heads)]
        return [part.transpose(1, 2) for part in heads]

    def _replaced(self, q: Tensor, k: Tensor, v: Tensor, turns: tuple[Tensor, Tensor],
                  pose: BoundPoses) -> tuple[Tensor, Tensor, Tensor]:
        """P on channels of time, which come first: a change of order that queries and keys share changes no score."""
        still = turns[0].index_fill(-1, pose.taken, 1.0), turns[1].index_fill(-1, pose.taken, 0.0)
        chosen_q, chosen_k = of_heads(q, pose.heads), of_heads(k, pose.key_heads)
        new_q, new_k = (part.index_select(-1, pose.order) for part in self.plan.shape.rotate(chosen_q, chosen_k, *still))
        if pose.queries is not None:
            new_q, new_k = pose.queries.queries(new_q), pose.keys.keys(new_k)
            if self.plan.settings.values:
                v = on_heads(v, pose.key_heads, pose.keys.values)
        if pose.heads is not None:
            q, k = self.plan.shape.rotate(q, k, *turns)
        return put_heads(q, pose.heads, new_q), put_heads(k, pose.key_heads, new_k), v

    def _appended(self, q: Tensor, k: Tensor, hidden: Tensor, pose: BoundPoses) -> tuple[Tensor, Tensor]:
        """Queries and keys with more channels, zero in heads without poses."""
        width = q.shape[-1]
        if self.plan.settings.mode == 'append':
            extra_q, extra_k = (layer(hidden).unflatten(-1, (-1, self.plan.added)).transpose(1, 2)
                                for layer in (self.pose_q, self.pose_k))
            if pose.queries is not None:
                extra_q, extra_k = pose.queries.queries(extra_q), pose.keys.keys(extra_k)
        elif pose.queries is None:
            extra_q, extra_k = (torch.zeros_like(of_heads(part, chosen)[..., :1]).expand(-1, -1, -1, self.plan.added)
                                for part, chosen in ((q, pose.heads), (k, pose.key_heads)))
        else:
            extra_q = pose.queries.queries(of_heads(q, pose.heads))[..., width:]
            extra_k = pose.keys.keys(of_heads(k, pose.key_heads))[..., width:]
        return (torch.cat([q, spread_heads(extra_q, pose.heads, q.shape[1])], dim=-1),
                torch.cat([k, spread_heads(extra_k, pose.key_heads, k.shape[1])], dim=-1))


def of_heads(heads: Tensor, chosen: Tensor | None) -> Tensor:
    """The chosen ones of (B, heads, n, d); None is all."""
    return heads if chosen is None else heads.index_select(1, chosen)


def on_heads(heads: Tensor, chosen: Tensor | None, function: Callable[[Tensor], Tensor]) -> Tensor:
    """(B, heads, n, d) -> the same, the chosen heads changed."""
    return put_heads(heads, chosen, function(of_heads(heads, chosen)))


def put_heads(heads: Tensor, chosen: Tensor | None, new: Tensor) -> Tensor:
    """(B, heads, n, d) with `new` in the place of the chosen ones."""
    return new if chosen is None else heads.index_copy(1, chosen, new.to(heads.dtype))


def spread_heads(heads: Tensor, chosen: Tensor | None, count: int) -> Tensor:
    """(B, some, n, d) -> (B, count, n, d), zeros elsewhere."""
    if chosen is None:
        return heads
    return heads.new_zeros(heads.shape[0], count, *heads.shape[2:]).index_copy(1, chosen, heads)

