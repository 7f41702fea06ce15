"""Memory read, where keys lie. In: stored keys, poses of their frames. Out: keys that say it, as the current frame sees it.

Two encodings of place. The distance between cells is added to the similarity by two channels more, see TemporalMemory. The
ego's poses turn the keys themselves: groups of four channels are points that move with the ego (CaPE of EscherNet, Kong et al.,
CVPR 2024), so that a key compares with the current frame's as if it had been seen from here. Queries belong to the current
frame and values keep their meaning: neither is touched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from projects.encodings import Views, build_encoding
from projects.geometry.precision import full_precision
from projects.geometry.rigid import invert_affine

_KIND = 'CaPE6'


@dataclass(frozen=True)
class KeyPosition:
    """What `temporal.key_position` says.

    Attributes:
        distance: whether the distance between cells, in the current frame, counts, with a learned weight.
        ego: settings of an encoding of the ego's poses, dict(type='CaPE6', layout='P1/2 I1/2', trans_scale=0.04); None is none.
    """

    distance: bool = True
    ego: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, said: bool | Mapping[str, Any]) -> KeyPosition:
        """True is the distance alone, False nothing."""
        return cls(**said) if isinstance(said, Mapping) else cls(distance=said)

    def build_ego(self, key_dim: int, align: str) -> EgoPose | None:
        """The encoding of the ego's poses; ValueError where it does not fit keys of `key_dim` channels, or poses are not known
        because memory is not aligned."""
        if self.ego is None:
            return None
        if align != 'network':
            raise ValueError(f"temporal.key_position.ego needs the ego's poses, but temporal.align={align!r} leaves them out: "
                             "set align='network'")
        return EgoPose(key_dim, self.ego)


class EgoPose(nn.Module):
    """Keys as seen from now: P = cur_from_slot on groups of four channels, of keys alone.

    Args:
        key_dim: CK.
        settings: of build_encoding, type CaPE6 with a layout of P and I (channels that stay as they are).
    """

    def __init__(self, key_dim: int, settings: Mapping[str, Any]) -> None:
        super().__init__()
        kind, layout = settings.get('type'), settings.get('layout', 'P1/1')
        if kind != _KIND:
            raise ValueError(f'temporal.key_position.ego.type must be {_KIND}, which leaves values and queries alone, got '
                             f'{kind!r}')
        if not isinstance(layout, str) or set(re.findall('[A-Z]', layout)) - set('PI') or settings.get('intrinsics') \
                or settings.get('values') or 'reference' in settings:
            raise ValueError('temporal.key_position.ego encodes poses of frames: its layout has P and I alone, and there are '
                             f'no intrinsics, values or reference; got {dict(settings)}')
        self.key_dim = key_dim
        self.encoding = build_encoding(dict(settings, reference='world'))
        self.encoding.check(1, key_dim)

    @full_precision
    def forward(self, key: Tensor, cur_from_slot: Tensor) -> Tensor:
        """key (B, CK, F * cells) of F frames, cur_from_slot (B, F, 4, 4) float64 -> the same shape."""
        here = torch.eye(4, dtype=torch.float64, device=key.device).expand(len(key), 1, 4, 4)
        now, then = (Views(poses, validate=False) for poses in (here, invert_affine(cur_from_slot)))
        bound = self.encoding.bind(now, then, 1, self.key_dim)
        return bound.keys(key.transpose(1, 2)[:, None])[:, 0].transpose(1, 2)
