"""Small rigs and fusion layers made by hand: 16 x 16 BEV cells of 2 x 2 m, images of 64 x 96 px, features at stride 8."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from projects.memfusion.fusion import BEVFormerLiteFusion, FastBEVFusion, FuTr, FuTrPlusPlus, PETRv2Fusion
from projects.memfusion.structures import Calibration

RANGE = (-16.0, -16.0, -3.0, 16.0, 16.0, 3.0)
BEV_CHANNELS, IMG_CHANNELS, STRIDE = 6, 5, 8
NAMES = tuple(f'CAM_{i}' for i in range(8))


def camera(yaw: float, offset_m=(0.0, 0.0, 0.0), height=64, width=96, focal=48.0) -> dict:
    """A level camera of the info that looks along `yaw` (radians) from `offset_m`."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    matrix = np.eye(4)
    matrix[:3, :3] = [[sin, -cos, 0], [0, 0, -1], [cos, sin, 0]]
    matrix[:3, 3] = -matrix[:3, :3] @ np.array(offset_m)
    cam2img = [[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]]
    return dict(cam2img=cam2img, lidar2cam=matrix, height=height, width=width)


def ring(count: int, frames: int = 2, missing: dict | None = None, bev_aug=None, mixed: bool = False) -> Calibration:
    """`count` cameras around the car; `missing` {frame: cameras that are not there}; mixed: every other image is smaller."""
    info = {}
    for i in range(count):
        small = dict(height=40, width=72, focal=36.0) if mixed and i % 2 else {}
        yaw = 2 * math.pi * i / count + 0.1
        info[NAMES[i]] = camera(yaw, (0.5 * math.cos(yaw), 0.5 * math.sin(yaw), 0.3), **small)
    calibration = Calibration.cat([Calibration.from_info(info, bev_aug=bev_aug)] * frames)
    for frame, cameras in (missing or {}).items():
        calibration.cam_valid[frame, cameras] = False
    return calibration


def inputs(calibration: Calibration, levels: int = 1, seed: int = 0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """bev_lidar (V, 6, 16, 16) and features (V, N, 5, 8, 12), then at half the resolution."""
    generator = torch.Generator().manual_seed(seed)
    frames, cameras = calibration.cam_valid.shape
    bev = torch.randn(frames, BEV_CHANNELS, 16, 16, generator=generator)
    return bev, [torch.randn(frames, cameras, IMG_CHANNELS, 8 >> k, 12 >> k, generator=generator) for k in range(levels)]


def randomise(layer: torch.nn.Module, scale: float = 0.2, seed: int = 1) -> torch.nn.Module:
    """No weight stays at zero, so that every path of the layer does something."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        parameter.data.add_(scale * torch.randn(parameter.shape, generator=generator))
    return layer


QUERY_LAYERS = dict(
    bevformer=(BEVFormerLiteFusion, dict(
        layers=dict(num_layers=2, dim=16, num_heads=4, ffn_channels=16), self_attention=dict(num_points=2),
        cross_attention=dict(num_points=2, heights_m=(-1.0, 1.0)))),
    petr=(PETRv2Fusion, dict(
        layers=dict(num_layers=2, dim=16, num_heads=4, ffn_channels=16, query_grid=(8, 4)), embedding=dict(depths=4))))
"""Fusions of BEV queries, and their settings where a test says nothing else."""


def build(kind: str = 'plus', random_weights: bool = True, strides=(STRIDE,), **stages) -> torch.nn.Module:
    """FuTr, FastBEV, BEVFormer-Lite, PETRv2Fusion or FuTr++ with reproducible weights, in eval mode."""
    torch.manual_seed(0)
    common = dict(bev_channels=BEV_CHANNELS, img_channels=IMG_CHANNELS, point_cloud_range=RANGE, strides=strides)
    if kind == 'futr':
        layer = FuTr(**common, **{'dim': 16, 'num_heads': 4, 'bev_grid': (4, 4), **stages})
    elif kind == 'fast':
        layer = FastBEVFusion(**common, **{'bev_shape': (16, 16), 'channels': 8, **stages})
    elif kind in QUERY_LAYERS:
        kind_of, small = QUERY_LAYERS[kind]
        merged = {**stages, **{k: {**v, **stages.get(k, {})} for k, v in small.items()}}
        layer = kind_of(bev_shape=(16, 16), **common, **merged)
    else:
        small = dict(tokens=dict(grid=2, dim=16), select=dict(hidden_channels=4), sample=dict(num_heads=4, num_points=2),
                     calib_refine=dict(grid=(2, 4), hidden_channels=8, depths_m=(4.0, 8.0)))
        layer = FuTrPlusPlus(**common, **{**stages, **{k: {**v, **stages.get(k, {})} for k, v in small.items()}})
    return (randomise(layer) if random_weights else layer).eval()


CASES = [
    pytest.param(dict(kind='futr'), id='futr'),
    pytest.param(dict(kind='futr', grid=2), id='futr-tokens'),
    pytest.param(dict(kind='fast', strides=(8, 16)), id='fast'),
    pytest.param(dict(kind='bevformer'), id='bevformer'),
    pytest.param(dict(kind='bevformer', strides=(8, 16), cross_attention=dict(kind='deformable')), id='bevformer-deformable'),
    pytest.param(dict(kind='petr'), id='petr'),
    pytest.param(dict(geometry=dict(kind='camera_id', cam_names=NAMES)), id='geometry-camera_id'),
    *[pytest.param(dict(geometry=dict(kind=kind)), id=f'geometry-{kind}')
      for kind in ('none', 'yaw_pitch', 'ray', 'pluecker', 'frustum')],
    *[pytest.param(dict(film=dict(kind=kind), sample=dict(kind='off')), id=f'film-{kind}')
      for kind in ('global', 'per_camera_sum', 'per_camera_gated')],
    *[pytest.param(dict(select=dict(kind=kind)), id=f'select-{kind}')
      for kind in ('all', 'random', 'heatmap', 'occupancy', 'learned')],
    pytest.param(dict(film=dict(kind='off'), select=dict(kind='geometric'), sample=dict(self_attn=True, film_back=True)),
                 id='sparsebev'),
    *[pytest.param(dict(tokens=dict(grid=grid), film=dict(kind='off'), sample=dict(kind='tokens')), id=f'tokens-{grid}')
      for grid in (1, 8, 16)],
    pytest.param(dict(film=dict(kind='off')), id='deformable-alone'),
    *[pytest.param(dict(tokens=dict(grid=grid)), id=f'deformable-{grid}') for grid in (1, 16)],
    *[pytest.param(dict(calib_refine=dict(kind=kind, confidence=sure)), id=f'refine-{kind}-{sure}')
      for kind in ('none', 'offsets', 'pose') for sure in (False, True) if sure or kind != 'none'],
    pytest.param(dict(strides=(8, 16), sample=dict(kind='deformable')), id='two-levels'),
    pytest.param(dict(strides=(8, 16), tokens=dict(level=1), sample=dict(kind='tokens'), film=dict(kind='global'),
                      calib_refine=dict(kind='pose', confidence=True)), id='tokens-of-level-1'),
]
