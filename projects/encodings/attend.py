"""Encodings. In: queries, keys and values of an attention, their views. Out: what the queries read, poses in mind."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .bound import Encoding
from .view_checks import check_device
from .views import Views


def attention(q: Tensor, k: Tensor, v: Tensor, encoding: Encoding, views_q: Views, views_k: Views | None = None,
              mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """Scaled dot-product attention under an encoding; the scale is 1 / sqrt(d) of the heads that come in.

    Args:
        q: (B, heads, Q, d).
        k, v: (B, heads, S, d).
        encoding: what `build_encoding` made.
        views_q, views_k: of the Q and the S tokens; None: the queries'.
        mask: bool, broadcast to (B, heads, Q, S), True attends.
        is_causal: whether query i reads keys 0..i only.

    Returns:
        (B, heads, Q, d).

    Raises:
        ValueError: where shapes do not fit together, the views are not of these tokens or lie on another device, the head dim
            does not fit the encoding, or the mask is not bool.
    """
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f'attention: mask must be bool, True attends; got {mask.dtype}')
    if not q.dim() == k.dim() == v.dim() == 4 or q.shape[3] != k.shape[3] or k.shape[2] != v.shape[2]:
        raise ValueError('attention: q must be (B, heads, Q, d), k and v (B, heads, S, d); got '
                         f'{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}')
    for views, heads, name in ((views_q, q, 'queries'), (views_k, k, 'keys')):
        if views is not None:
            check_device(views, heads.device, name)
    bound = encoding.bind(views_q, views_k, q.shape[1], q.shape[3])
    bias = bound.bias(q.shape[2], k.shape[2], q.dtype)
    if is_causal and (mask is not None or bias is not None):
        lower = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        mask, is_causal = lower if mask is None else mask & lower, False
    scale = q.shape[-1] ** -0.5
    q, k, v = bound.queries(q), bound.keys(k), bound.values(v)
    if bias is not None:
        mask = bias if mask is None else bias.masked_fill(~mask, -torch.inf)
    read = F.scaled_dot_product_attention(q, k, v, mask, is_causal=is_causal, scale=scale)
    del q, k, v
    return bound.outputs(read)
