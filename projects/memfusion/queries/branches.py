"""Queries. In: query features (..., E). Out: the layers that say classes and boxes, as DETR's successors have them."""

from __future__ import annotations

import math

from torch import nn

PRIOR = 0.01
"""Share of queries that start out as an object of a class (RetinaNet, Lin et al., ICCV 2017)."""


def classification_branch(dim: int, num_classes: int, depth: int = 2) -> nn.Sequential:
    """(..., E) -> (..., num_classes) logits: (linear, LayerNorm, ReLU) `depth` times, linear."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(dim, dim), nn.LayerNorm(dim), nn.ReLU()]
    last = nn.Linear(dim, num_classes)
    nn.init.constant_(last.bias, -math.log((1 - PRIOR) / PRIOR))
    return nn.Sequential(*layers, last)


def regression_branch(dim: int, numbers: int, depth: int = 2) -> nn.Sequential:
    """(..., E) -> (..., numbers): (linear, ReLU) `depth` times, linear."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(dim, dim), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(dim, numbers))
