"""Study. In: a forecast world. Out: a memory that learned to forecast, stored features of agents, heads trained on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor, nn

from projects.memfusion.forecasting import TrajectoryHead
from projects.memfusion.forecasting.pooling import AgentPooling
from projects.memfusion.losses.trajectory_losses import TrajectoryLoss
from projects.memfusion.structures import Agents, Forecast
from projects.studies.memory.descent import Descent
from projects.studies.memory.rows import Budget

from .rows import HEAD, NARROW, POOLINGS, Row
from .world import ForecastWorld, flattened, picked, turned


@dataclass(frozen=True)
class StoredFeatures:
    """Features of A agents by how they were pooled: (A, H, F), and flags (A, H)."""

    features: dict[str, Tensor]
    flags: dict[str, Tensor]


def train_memory(cfg: Config, world: ForecastWorld, budget: Budget, seed: int) -> Any:
    """Trains the config's model on turned and mirrored clips -> the model, in eval mode.

    A budget of no iterations leaves it as it was drawn.

    First the head alone, on kinematics beside empty features; then memory and head together. From the start together, the
    head's first large losses drive the sensory state to its bounds within tens of steps, where rasters no longer move it.
    """
    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    if not budget.iterations:
        return model.eval()
    draw, agents = torch.Generator().manual_seed(seed), flattened(world.agents)
    nothing, there = torch.zeros(1, 1, agents.num_frames, model.features.dim), torch.ones(1, 1, agents.num_frames)

    def empty(some: Agents, rows: Tensor) -> Forecast:
        return model.head(some, nothing.expand(-1, len(rows), -1, -1), there.expand(-1, len(rows), -1))

    seconds = fit_head(model.head, empty, agents, HEAD, draw)

    def step() -> Tensor:
        rows = torch.randint(len(world.agents), (budget.clips,), generator=draw).tolist()
        quarters, mirrored = int(torch.randint(4, (), generator=draw)), bool(torch.randint(2, (), generator=draw))
        inputs = turned(world.batch(rows), quarters, mirrored)
        with torch.autocast('cpu', torch.bfloat16):
            return sum_of(model(inputs, [], mode='loss'))

    seconds += descend(model.train(), step, budget)
    print_log(f'  memory of seed {seed}: {budget.iterations} steps in {seconds:.0f} s', 'current')
    return model.eval()


@torch.no_grad()
def store_features(model: Any, world: ForecastWorld, donors: Sequence[int] | None = None, clips: int = 1) -> StoredFeatures:
    """What the memory holds of every agent, pooled in all ways; with `donors`, of the rasters of those clips instead.

    One clip after the other, for padding to the one with most agents costs more than it saves.
    """
    features: dict[str, list[Tensor]] = {name: [] for name in POOLINGS}
    flags: dict[str, list[Tensor]] = {name: [] for name in POOLINGS}
    memory = model.features
    for start in range(0, len(world.agents), clips):
        rows = list(range(start, min(start + clips, len(world.agents))))
        inputs = world.batch(rows, None if donors is None else [donors[row] for row in rows])
        agents: Agents = inputs['agents']
        maps, places = memory.remember(inputs, agents)
        for name in POOLINGS:
            pooled, flag = AgentPooling(name, maps.shape[3], memory.pooling.around)(maps, *places)
            features[name].append(pooled[agents.valid])
            flags[name].append(flag[agents.valid])
    return StoredFeatures({name: torch.cat(parts) for name, parts in features.items()},
                          {name: torch.cat(parts) for name, parts in flags.items()})


def standardised(stored: dict[str, StoredFeatures], pooling: str, known: Tensor) -> dict[str, StoredFeatures]:
    """The features of one pooling, of mean 0 and deviation 1 over the frames of the training agents.

    Agents differ by a twentieth in the states of a memory that was not trained, and heads begin with inputs of order 1.

    Args:
        known: (A, H) bool, in which frames the agents of stored['train'] were there.
    """
    seen = stored['train'].features[pooling][known]
    mean, deviation = seen.mean(dim=0), seen.std(dim=0).clamp(min=1e-4)
    return {name: StoredFeatures({pooling: (part.features[pooling] - mean) / deviation}, {pooling: part.flags[pooling]})
            for name, part in stored.items()}


def train_head(row: Row, agents: Agents, stored: StoredFeatures | None, budget: Budget,
               seed: int) -> tuple[TrajectoryHead, float]:
    """A head on the stored features, the same draws for every row; and the seconds it took."""
    torch.manual_seed(seed)
    width = 0 if stored is None or row.pooling is None else stored.features[row.pooling].shape[-1]
    settings: dict[str, Any] = NARROW if row.has_memory else {}
    head, draw = TrajectoryHead(width, row.modes, **settings), torch.Generator().manual_seed(seed)
    seconds = fit_head(head, lambda some, rows: run_head(head, row, some, stored, rows), agents, budget, draw)
    return head.eval(), seconds


def fit_head(head: TrajectoryHead, forecast: Callable[[Agents, Tensor], Forecast], agents: Agents, budget: Budget,
             draw: torch.Generator) -> float:
    """Trains a head; returns the seconds it took.

    Args:
        head: that learns.
        forecast: of it, for some of the agents and their positions.
        agents: of one scene.
        budget: `clips` agents a step.
        draw: which.
    """
    loss, count = TrajectoryLoss(), agents.valid.shape[1]

    def step() -> Tensor:
        rows = torch.randint(count, (min(budget.clips, count),), generator=draw)
        some = picked(agents, rows)
        made = forecast(some, rows)
        return sum_of(loss(made.modes, made.logits, some.future_xy, some.future_valid))

    return descend(head.train(), step, budget)


def run_head(head: TrajectoryHead, row: Row, agents: Agents, stored: StoredFeatures | None, rows: Tensor) -> Forecast:
    """Futures of agents of one scene, whose features stand at `rows`."""
    if stored is None or row.pooling is None:
        return head(agents)
    return head(agents, stored.features[row.pooling][rows][None], stored.flags[row.pooling][rows][None])


def sum_of(losses: dict[str, Tensor]) -> Tensor:
    """All losses in one."""
    return torch.stack([*losses.values()]).sum()


def descend(model: nn.Module, step: Callable[[], Tensor], budget: Budget) -> float:
    """The budget's steps down; returns the seconds they took."""
    descent, start = Descent(model.parameters(), budget), time.perf_counter()
    for _ in range(budget.iterations):
        descent.step(step())
    return time.perf_counter() - start
