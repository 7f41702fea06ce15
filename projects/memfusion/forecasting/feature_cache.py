"""Forecasting: features of frozen memory, kept. In: a source, inputs, Agents. Out: (B, A, H, F), flags, computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from projects.memfusion.structures import Agents

Features = tuple[Tensor, Tensor]


class FeatureCache:
    """Keeps the features of every agent by its token, in the main memory of this process: 1.3 kB an agent of 5 frames and 64
    channels. A batch whose agents have all been seen is answered without the source.

    A clip computed in another batch may differ in the last bits, so that a resumed run, which starts with nothing kept, does.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Features] = {}

    def clear(self) -> None:
        """Forgets all, for weights may have changed."""
        self._kept.clear()

    def __call__(self, source: Callable[[Mapping[str, Any], Agents], Features], inputs: Mapping[str, Any],
                 agents: Agents) -> Features:
        """What `source(inputs, agents)` gives; zeros for padding.

        Raises:
            ValueError: naming the sample of an augmented clip: the same agent looks different each time.
        """
        for sample in inputs.get('data_samples', ()):
            aug = sample.metainfo.get('bev_aug')
            if aug is not None and not np.array_equal(aug, np.eye(4)):
                raise ValueError(f'sample {sample.metainfo.get("sample_token")}: cache_features keeps what memory makes of a '
                                 'clip, but the clips are augmented: take the augmentation out of the pipeline, or set '
                                 'cache_features=False')
        wanted = {token for tokens in agents.tokens for token in tokens}
        if not wanted or not wanted <= self._kept.keys():
            features, flags = source(inputs, agents)
            for row, tokens in enumerate(agents.tokens):
                kept = zip(tokens, features[row].detach().cpu().clone(), flags[row].detach().cpu().clone())
                self._kept |= {token: (feature, flag) for token, feature, flag in kept}
            return features, flags
        return self._look_up(agents)

    def _look_up(self, agents: Agents) -> Features:
        batch, count, length = agents.history_valid.shape
        width = self._kept[next(token for tokens in agents.tokens for token in tokens)][0].shape[-1]
        features, flags = torch.zeros(batch, count, length, width), torch.zeros(batch, count, length)
        for row, tokens in enumerate(agents.tokens):
            for at, token in enumerate(tokens):
                features[row, at], flags[row, at] = self._kept[token]
        device = agents.valid.device
        return features.to(device, non_blocking=True), flags.to(device, non_blocking=True)
