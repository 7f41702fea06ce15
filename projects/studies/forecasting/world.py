"""Study. In: a forecast world on disk. Out: the rasters of all clips of a split and their agents, in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor

from projects.memfusion.runtime.errors import UserError
from projects.memfusion.structures import Agents
from projects.studies.memory.run import run_tool

from .rows import WORLDS

MORE_SEEDS = (1, 2, 3)
"""Of worlds that are only learned from: of one world's 16 scenes a head learns little that holds elsewhere."""


@dataclass(frozen=True)
class ForecastWorld:
    """N clips of one split.

    Attributes:
        rasters: (N, T, 3, h, w) float16.
        agents: N scenes' agents (B = 1 each).
        scenes: N scene tokens.
    """

    rasters: Tensor
    agents: list[Agents]
    scenes: list[str]

    @staticmethod
    def join(worlds: Sequence[ForecastWorld]) -> ForecastWorld:
        """The clips of all, one world after the other; scenes of two worlds are two, whatever their tokens."""
        return ForecastWorld(torch.cat([world.rasters for world in worlds]), [one for world in worlds for one in world.agents],
                             [f'{number}: {scene}' for number, world in enumerate(worlds) for scene in world.scenes])

    def agents_of(self, number: int) -> list[Agents]:
        """Those of one of the worlds that were joined."""
        return [one for one, scene in zip(self.agents, self.scenes) if scene.startswith(f'{number}: ')]

    def batch(self, rows: Sequence[int], donors: Sequence[int] | None = None) -> dict[str, Any]:
        """Inputs of a forecaster, of the clips at `rows`; `donors` are the clips whose rasters they are given instead."""
        rasters = self.rasters[list(rows if donors is None else donors)].float()
        return dict(rasters=rasters, agents=Agents.cat([self.agents[row] for row in rows]),
                    clip_shape=(len(rows), rasters.shape[1]))

    def of_other_scenes(self) -> list[int]:
        """For each clip, one of another scene: that at the same share of the way through the clips of the next scene.

        Raises:
            UserError: where there is one scene alone.
        """
        members: dict[str, list[int]] = {}
        for row, scene in enumerate(self.scenes):
            members.setdefault(scene, []).append(row)
        names = list(members)
        if len(names) < 2:
            raise UserError(f'{len(names)} scene in the split: another one is needed to give agents its rasters')
        donors = []
        for row, scene in enumerate(self.scenes):
            own, other = members[scene], members[names[(names.index(scene) + 1) % len(names)]]
            donors.append(other[own.index(row) * len(other) // len(own)])
        return donors


def training_roots(root: Path) -> list[Path]:
    """The worlds that are learned from: `root`, which is tested on as well, and those of other seeds beside it."""
    return [root, *(root.with_name(f'{root.name}-{seed}') for seed in MORE_SEEDS)]


def make_world(root: Path, preset: str = 'forecast') -> None:
    """The forecast worlds of `training_roots`, made and prepared where they are missing."""
    for seed, folder in zip((0, *MORE_SEEDS), training_roots(root)):
        if not (folder / 'nuscenes_infos_val.pkl').is_file():
            run_tool('tools/create_synthetic_nuscenes.py', '--preset', preset, '--seed', str(seed), '--out', str(folder))
            run_tool('tools/create_data.py', 'nuscenes', '--root-path', str(folder), '--version', 'v1.0-trainval',
                     '--skip-gt-database')


def load_config(root: Path, kind: str = 'plain') -> Config:
    """The study's config of one of WORLDS, reading `root`."""
    cfg = Config.fromfile(WORLDS[kind])
    for phase in ('train', 'val', 'test'):
        cfg[f'{phase}_dataloader'].dataset.data_root = f'{root}/'
    return cfg


def load_world(cfg: Config, phase: str) -> ForecastWorld:
    """All clips of the data set of 'train' or 'test'."""
    dataset = DATASETS.build(cfg[f'{phase}_dataloader'].dataset)
    rasters, agents, scenes = [], [], []
    for row in range(len(dataset)):
        frames = dataset[row]
        rasters.append(torch.stack([frame['inputs']['raster'] for frame in frames]).half())
        agents.append(frames[-1]['inputs']['agents'])
        scenes.append(frames[-1]['data_samples'].metainfo['scene_token'])
    world = ForecastWorld(torch.stack(rasters), agents, scenes)
    print_log(f'{phase}: {len(agents)} clips, {sum(len(one.tokens[0]) for one in agents)} agents of {len(set(scenes))} scenes',
              'current')
    return world


def flattened(agents: Sequence[Agents]) -> Agents:
    """The agents of N scenes as those of one, without padding."""
    joined: dict[str, Any] = {}
    for name in agents[0].tensors():
        joined[name] = torch.cat([one.tensors()[name][:, :len(one.tokens[0])] for one in agents], dim=1)
    return Agents(tokens=(tuple(token for one in agents for token in one.tokens[0]),), **joined)


def picked(agents: Agents, rows: Tensor) -> Agents:
    """Some agents of one scene, by their positions."""
    chosen: dict[str, Any] = {name: tensor[:, rows] for name, tensor in agents.tensors().items()}
    return replace(agents, tokens=(tuple(agents.tokens[0][row] for row in rows.tolist()),), **chosen)


def turned(inputs: dict[str, Any], quarters: int, mirrored: bool) -> dict[str, Any]:
    """Rasters and boxes turned by quarters about the ego, and mirrored: the same traffic in another direction.

    In the agents' frames a turn changes nothing and a mirror image swaps left and right.
    """
    rasters, agents = inputs['rasters'], inputs['agents']
    boxes = agents.boxes.clone()
    if mirrored:
        rasters = rasters.flip(-2)  # y
        boxes[..., 1], boxes[..., 6] = -boxes[..., 1], -boxes[..., 6]
        side, kinematics = agents.history_xy.new_tensor([-1.0, 1.0]), agents.kinematics.clone()
        kinematics[..., [0, 4, 5]] *= -1  # dx, yaw rate, sine
        agents = replace(agents, history_xy=agents.history_xy * side, future_xy=agents.future_xy * side, kinematics=kinematics)
    for _ in range(quarters):
        rasters = rasters.transpose(-2, -1).flip(-1)  # row y, column x: (x, y) -> (-y, x)
        x, y = boxes[..., 0].clone(), boxes[..., 1].clone()
        boxes[..., 0], boxes[..., 1], boxes[..., 6] = -y, x, boxes[..., 6] + torch.pi / 2
    return {**inputs, 'rasters': rasters, 'agents': replace(agents, boxes=boxes)}
