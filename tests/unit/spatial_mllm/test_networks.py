"""Adapters of geometry networks: their conventions, with stand-ins for packages that are not among the requirements."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from projects.spatial_mllm.geometry_sources import networks
from projects.spatial_mllm.geometry_sources.source import build_source

FRAMES = torch.randint(0, 255, (2, 28, 42, 3), dtype=torch.uint8)
POSES = torch.eye(4)[None, None, :3].repeat(1, 2, 1, 1)
POSES[0, 1, 2, 3] = 2.0
INTRINSICS = torch.tensor([[42.0, 0, 21], [0, 28, 14], [0, 0, 1]]).expand(1, 2, 3, 3)


class StandIn(nn.Module):
    """Has VGGT's parts and DA3's call; pictures are in 0..1, or normalised."""

    backbone = SimpleNamespace(out_layers=[3, 5])

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def aggregator(self, images):
        assert images.shape == (1, 2, 3, 28, 42) and 0 <= images.min() and images.max() <= 1
        tokens = torch.arange(2 * (5 + 6) * 4.0).reshape(1, 2, 11, 4) * self.scale
        return [torch.zeros_like(tokens), tokens], 5

    def camera_head(self, layers):
        return [None, layers[-1]]

    def point_head(self, layers, images, patch_start_idx):
        assert patch_start_idx == 5
        return torch.ones(1, 2, 28, 42, 3), torch.full((1, 2, 28, 42), 0.5)

    def forward(self, images, export_feat_layers):
        assert export_feat_layers == [5] and images.min() < 0
        aux = {'feat_layer_5': torch.ones(1, 2, 2, 3, 7)}
        return SimpleNamespace(depth=torch.full((1, 2, 28, 42), 4.0), depth_conf=torch.ones(1, 2, 28, 42), aux=aux,
                               extrinsics=POSES, intrinsics=INTRINSICS)


@pytest.fixture
def packages(monkeypatch):
    modules = {name: ModuleType(name) for name in (
        'vggt', 'vggt.models', 'vggt.models.vggt', 'vggt.utils', 'vggt.utils.pose_enc', 'depth_anything_3',
        'depth_anything_3.cfg')}
    modules['vggt.models.vggt'].VGGT = StandIn
    modules['vggt.utils.pose_enc'].pose_encoding_to_extri_intri = lambda code, size: (POSES, INTRINSICS)
    modules['depth_anything_3.cfg'].load_config = lambda name: name
    modules['depth_anything_3.cfg'].create_object = lambda name: StandIn() if name.endswith('.da3-small') else None
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def test_vggt(packages, tmp_path):
    torch.save({'model.scale': torch.full((1,), 2.0)}, tmp_path / 'model.pt')
    source = build_source(dict(type='VGGTGeometry', weights=str(tmp_path / 'model.pt')))
    found = source(FRAMES, None, (2, 3))
    assert found.tokens.shape == (2, 6, 4) and found.tokens[0, 0, 0] == 2 * 5 * 4 and found.camera[1, 0] == 2 * 44
    assert found.poses.cam_from_world[1, 2, 3] == 2 and found.poses.img_from_cam[0].diagonal().tolist() == [1, 1, 1]
    assert found.world_points.shape == (2, 28, 42, 3) and (found.confidence == 0.5).all()
    with pytest.raises(ValueError, match='the network has 6 patches a frame, the model 2 x 2'):
        source(FRAMES, None, (2, 2))
    with pytest.raises(ValueError, match='28 x 40 pixels do not divide'):
        source(FRAMES[:, :, :40], None, (2, 3))
    with pytest.raises(FileNotFoundError, match='no such weights'):
        build_source(dict(type='VGGTGeometry', weights='nowhere.pt'))


def test_depth_anything(packages):
    found = build_source(dict(type='DepthAnything3Geometry', weights=None, config='da3-small'))(FRAMES, None, (2, 3))
    assert found.tokens.shape == (2, 6, 7) and found.camera is None
    corner = found.world_points[:, 0, 0].tolist()
    assert corner[0] == pytest.approx([4 * (0.5 - 21) / 42, 4 * (0.5 - 14) / 28, 4]) and corner[1][2] == pytest.approx(2)


@pytest.mark.parametrize('kind, package', [('VGGTGeometry', 'vggt'), ('DepthAnything3Geometry', 'depth-anything-3')])
def test_a_package_that_is_not_there_is_named(kind, package, monkeypatch):
    for name in ('vggt', 'vggt.models.vggt', 'depth_anything_3', 'depth_anything_3.cfg'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f'{package} is not installed.*PrecomputedGeometry'):
        build_source(dict(type=kind, weights=None))
    assert networks.VGGTGeometry.needs == ()
