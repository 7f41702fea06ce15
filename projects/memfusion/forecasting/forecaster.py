"""READ FIRST. Forecasting: the model. In: clips and their agents. Out: futures of every agent, global xy, with probabilities.

    features(inputs, agents)       memory streams over the clip; pooled per agent and frame      (B, A, H, F), flags
    head(agents, features, flags)  what the agent did and what memory holds of it                Forecast
    losses, or `pred_futures` on the last frame's data sample
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import Tensor

from projects.memfusion.losses.ranks import zero_of
from projects.memfusion.losses.trajectory_losses import TrajectoryLoss
from projects.memfusion.structures import Agents, Forecast

from .feature_cache import FeatureCache

FIELD = 'pred_futures'


@MODELS.register_module()
class AgentForecaster(BaseModel):
    """Forecasts agents from kinematics and, with `features`, from memory.

    Args:
        head: e.g. dict(type='TrajectoryHead', num_modes=5); its feature_dim is filled in.
        features: e.g. dict(type='MemoryAgentFeatures', ...); None is kinematics alone.
        loss: e.g. dict(type='TrajectoryLoss').
        train_features: whether the memory learns too (stage 2), or names of the parts of `features` that do, e.g. ['stream'];
            what does not is frozen and stays in eval mode (stage 1).
        cache_features: whether the features of frozen memory are computed once a clip and kept, see FeatureCache.
        data_preprocessor: dict(type='ForecastDataPreprocessor', ...).
    """

    def __init__(
        self,
        head: dict,
        features: dict | None = None,
        loss: dict | None = None,
        train_features: bool | Sequence[str] = False,
        cache_features: bool = False,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.features: Any = None if features is None else MODELS.build(features)
        self.head: Any = MODELS.build({**head, 'feature_dim': 0 if self.features is None else self.features.dim})
        self.loss_futures: Any = TrajectoryLoss() if loss is None else MODELS.build(loss)
        self.frozen: list[str] = []
        if self.features is not None:
            parts = [name for name, _ in self.features.named_children()]
            learning = ['pooling', *(parts if train_features is True else train_features or ())]
            unknown = sorted(set(learning) - set(parts))
            if unknown:
                raise ValueError(f'AgentForecaster.train_features names {unknown}, but the parts of features are {parts}')
            self.frozen = [name for name in parts if name not in learning]
            for name in self.frozen:
                self.features.get_submodule(name).requires_grad_(False)
        self.kept = FeatureCache() if cache_features else None
        if cache_features and (self.features is None or any(one.requires_grad for one in self.features.parameters())):
            raise ValueError('AgentForecaster.cache_features keeps what frozen memory says: it needs features of which nothing '
                             "learns (train_features=False, and no pooling='attn')")

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        if self.kept is not None:
            self.kept.clear()

    def train(self, mode: bool = True) -> AgentForecaster:
        """As usual, except that frozen memory stays in eval mode."""
        super().train(mode)
        for name in self.frozen:
            self.features.get_submodule(name).eval()
        return self

    def forward(self, inputs: Mapping[str, Any], data_samples: Sequence[BaseDataElement], mode: str = 'tensor') -> Any:
        """mode 'loss': dict of losses; 'predict': B data samples with `pred_futures`; 'tensor': Forecast.

        Args:
            inputs: what ForecastDataPreprocessor gives, `agents` among it.
            data_samples: B x T, clip-major.
        """
        agents: Agents = inputs['agents']
        forecast = self.forecast({**inputs, 'data_samples': data_samples}, agents)
        if mode == 'loss':
            return self.loss(forecast, agents)
        if mode == 'predict':
            length = inputs['clip_shape'][1]
            return write_futures(forecast, agents, data_samples[length - 1::length])
        return forecast

    def forecast(self, inputs: Mapping[str, Any], agents: Agents) -> Forecast:
        """Futures of B clips' agents."""
        if self.features is None:
            return self.head(agents)
        found = self.features(inputs, agents) if self.kept is None else self.kept(self.features, inputs, agents)
        return self.head(agents, *found)

    def loss(self, forecast: Forecast, agents: Agents) -> dict[str, Tensor]:
        """The losses of TrajectoryLoss over the agents of all ranks."""
        known = agents.future_valid & agents.valid[..., None]
        losses = self.loss_futures(forecast.modes, forecast.logits, agents.future_xy, known)
        # Distributed training waits for every parameter; nobody reads the last write, and a batch may have no agents.
        return {**losses, 'loss_unread': torch.zeros((), device=known.device) + zero_of(self)}


def write_futures(forecast: Forecast, agents: Agents, samples: Sequence[Any]) -> list[Any]:
    """Sets `pred_futures` of B data samples: tokens, modes and global_xy (n, M, 12, 2) metres, probabilities (n, M)."""
    xy, probabilities = forecast.global_xy(agents), forecast.logits.float().softmax(dim=-1)
    for row, (sample, tokens) in enumerate(zip(samples, agents.tokens, strict=True)):
        count = len(tokens)
        sample.set_field(BaseDataElement(tokens=tokens, modes=forecast.modes[row, :count], global_xy=xy[row, :count],
                                         probabilities=probabilities[row, :count]), FIELD)
    return list(samples)
