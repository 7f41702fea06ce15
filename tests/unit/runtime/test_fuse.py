"""Fused models: the same boxes as before, whatever is in the slots; what cannot be fused stays; no training afterwards."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet3d.models.dense_heads.centerpoint_head import SeparateHead
from mmdet3d.models.middle_encoders import PointPillarsScatter
from mmdet3d.models.voxel_encoders import HardVFE, PillarFeatureNet
from mmdet3d.registry import HOOKS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import EMAHook
from mmengine.runner.checkpoint import load_state_dict
from small_models import CAMERAS, MEMORY, NARROW
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from projects.memfusion.heads.peak_head import PeakHead
from projects.memfusion.lidar.real_points import ChannelsLastScatter, RealPointEncoder
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.fuse import fuse_for_inference
from projects.memfusion.runtime.launch import apply_fuse
from projects.memfusion.structures import Calibration
from projects.memfusion.structures.camera_frame import CameraFrame

CENTER = dict(pts_bbox_head=dict(
    in_channels=24, share_conv_channel=16, separate_head=dict(head_conv=8), bbox_coder=dict(max_num=60)))
ANCHOR = dict(pts_bbox_head=dict(in_channels=24, feat_channels=24), test_cfg=dict(pts=dict(nms_pre=40, max_num=10)))
LEAVES = {
    'lidar/pillar04_second_secfpn_tiny-synthetic.py': {**NARROW, **CENTER},
    'demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py': {**NARROW, **CENTER, **MEMORY},
    'fusion/futrpp-xmem-residual_r18_pillar04_second_secfpn_tiny-synthetic.py': {**NARROW, **CENTER, **CAMERAS, **MEMORY},
    'temporal/xmem-gate-anchor3d_pillar04_second_secfpn_tiny-synthetic.py': {**NARROW, **ANCHOR, **MEMORY},
}


def disturb(module):
    """Weights none of which is zero, BatchNorm statistics that are no identity."""
    generator = torch.Generator().manual_seed(1)
    for name, value in sorted(module.state_dict().items()):
        if value.dtype.is_floating_point and 'log_locality' not in name:
            noise = torch.rand(value.shape, generator=generator) * 0.2
            value.add_(noise if 'var' in name else noise - 0.1)
    return module.eval()


@pytest.fixture
def build(repo):
    def make(leaf):
        torch.manual_seed(0)
        cfg = Config.fromfile(repo / 'configs' / leaf)
        cfg.merge_from_dict(dict(model=copy.deepcopy(LEAVES[leaf])))
        model = disturb(MODELS.build(cfg.model))
        if hasattr(model.pts_bbox_head, 'task_heads'):  # few cells score, as in a trained model
            for head in model.pts_bbox_head.task_heads:
                head.heatmap[-1].bias.data.fill_(-2.7)
        return model

    return make


def with_cameras(frame):
    ahead = np.array([[1.0, 0, 0, 0], [0, 0, -1, 1], [0, 1, 0, 0], [0, 0, 0, 1]])  # LiDAR x right, y forward, z up
    calibration = Calibration.from_info({'CAM_FRONT': dict(
        cam2img=[[48.0, 0, 48], [0, 48, 32], [0, 0, 1]], lidar2cam=ahead, height=64, width=96)})
    image = torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    frame['inputs']['cameras'] = CameraFrame((image,), replace(calibration, cam_valid=torch.tensor([[True]])))
    return frame


@torch.no_grad()
def boxes_of(model, frames):
    """Boxes, scores and labels of frames that are streamed one by one."""
    found = []
    for frame in copy.deepcopy(frames):
        inputs = model.data_preprocessor(pseudo_collate([[frame]]))
        found.append(model(**inputs, mode='predict')[0].pred_instances_3d)
    return found


@pytest.mark.parametrize('leaf', LEAVES)
def test_boxes_are_the_same_after_fusing(build, make_frame, leaf):
    model = build(leaf)
    frames = [make_frame('scene', index) for index in range(3)]
    if 'futrpp' in leaf:
        frames = [with_cameras(frame) for frame in frames]
    expected = boxes_of(model, frames)
    model.session.clear()
    fused = fuse_for_inference(copy.deepcopy(model))
    assert not [name for name, part in fused.named_modules() if isinstance(part, _BatchNorm)]
    assert isinstance(fused.pts_voxel_encoder, RealPointEncoder)
    found = boxes_of(fused, frames)
    for ours, theirs in zip(found, expected, strict=True):
        assert len(theirs) > 2
        assert torch.equal(ours.labels_3d, theirs.labels_3d)
        torch.testing.assert_close(ours.scores_3d, theirs.scores_3d, rtol=0, atol=1e-4)
        torch.testing.assert_close(ours.bboxes_3d.tensor, theirs.bboxes_3d.tensor, rtol=0, atol=1e-4)
    inputs = fused.data_preprocessor(pseudo_collate([copy.deepcopy(frames[:1])]))['inputs']
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):  # as test_cfg.fp16; mmdet3d's NMS is float32
        fused.pts_bbox_head([fused.encode(inputs).bev[:, 0]])


@pytest.mark.parametrize('make', [
    lambda: PillarFeatureNet(5, (8, 6), with_distance=True, legacy=False, voxel_size=(0.5, 0.5, 8)),
    lambda: PillarFeatureNet(5, (8,), legacy=True, with_cluster_center=False, voxel_size=(0.5, 0.5, 8)),
    lambda: HardVFE(5, [8, 6], with_cluster_center=True, with_voxel_center=True, voxel_size=(0.5, 0.5, 8)),
], ids=['two layers', 'legacy', 'HardVFE'])
@torch.no_grad()
def test_padded_slots_count_as_they_do_in_mmdet3d(make):
    encoder = disturb(make())
    assert RealPointEncoder.replaces(encoder)
    num_points = torch.tensor([1, 4, 2, 3, 4, 1], dtype=torch.int32)
    voxels = torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(2))
    voxels *= torch.arange(4)[None, :, None] < num_points[:, None, None]
    coors = torch.tensor([[0, 0, i, 2 * i] for i in range(6)], dtype=torch.int32)
    expected = encoder(voxels.clone(), num_points, coors)  # mmdet3d's legacy form overwrites its input
    torch.testing.assert_close(RealPointEncoder(encoder)(voxels, num_points, coors), expected, rtol=0, atol=1e-5)
    full = torch.full_like(num_points, 4)  # the test can tell: zeros as points are not zeros as padding
    assert (RealPointEncoder(encoder)(voxels, full, coors) - expected).abs().max() > 1e-2


def test_scatter_of_a_batch_with_an_empty_frame():
    scatter = PointPillarsScatter(3, [4, 5])
    coors = torch.tensor([[0, 0, 1, 4], [2, 0, 3, 0], [0, 0, 0, 2]], dtype=torch.int32)
    features = torch.randn(3, 3)
    ours = ChannelsLastScatter(scatter)
    assert torch.equal(ours(features, coors, 3), scatter(features, coors, 3))
    assert torch.equal(ours(features[:1], coors[:1]), scatter(features[:1], coors[:1]))


@pytest.mark.parametrize('peaks', [[(0, 0, 0), (1, 7, 8), (1, 0, 8), (0, 3, 4)], [], None], ids=['corners', 'none', 'dense'])
@torch.no_grad()
def test_numbers_are_those_of_whole_maps_where_the_heatmap_scores(peaks):
    heads = dict(reg=(2, 2), height=(1, 2), heatmap=(2, 2))
    head = disturb(SeparateHead(4, heads, head_conv=6, final_kernel=3, num_cls=2))
    fused = fuse_for_inference(copy.deepcopy(head))
    fused.heatmap = head.heatmap = _Fixed(peaks)
    peak_head = PeakHead(fused, score_threshold=0.3)
    x = torch.randn(2, 4, 8, 9)
    expected, found = head(x), peak_head(x)
    scored = expected['heatmap'].sigmoid().amax(dim=1) > 0.3
    for name in heads:
        assert found[name].shape == expected[name].shape
        where = scored[:, None].expand_as(expected[name])
        torch.testing.assert_close(found[name][where], expected[name][where], rtol=0, atol=1e-5)
    if peaks is not None:
        assert not found['reg'].permute(0, 2, 3, 1)[~scored].any()


class _Fixed(nn.Module):
    """A heatmap that scores at these (frame, row, column); everywhere where they are None."""

    def __init__(self, peaks):
        super().__init__()
        self.peaks = peaks

    def forward(self, x):
        heat = x.new_full((len(x), 2, *x.shape[2:]), 2.0 if self.peaks is None else -5.0)
        for frame, row, column in self.peaks or ():
            heat[frame, 1, row, column] = 1.0
        return heat


class Odd(nn.Module):
    """Norms that must not be folded, and two that may."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, bias=False), nn.SyncBatchNorm(4)
        self.shared = nn.BatchNorm2d(4)
        self.twice = nn.Sequential(nn.Conv2d(4, 4, 1), self.shared)
        self.again = nn.Sequential(nn.Conv2d(4, 4, 1), self.shared)
        self.before = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
        self.group = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4))
        self.watched = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.swapped = ConvModule(4, 4, 1, norm_cfg=dict(type='BN'), order=('norm', 'conv', 'act'))
        self.groups = nn.Sequential(nn.ConvTranspose2d(4, 4, 2, groups=2), nn.BatchNorm2d(4))
        self.up = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.watched[0].register_forward_hook(lambda module, inputs, output: None)

    def forward(self, x):
        for part in (self.conv1, self.bn1, self.twice, self.again, self.before, self.group, self.watched, self.swapped,
                     self.groups, self.up):
            x = part(x)
        return x


@torch.no_grad()
def test_what_cannot_be_folded_stays():
    net = disturb(Odd())
    x = torch.randn(2, 3, 6, 6)
    expected = net(x)
    fused = fuse_for_inference(net)
    torch.testing.assert_close(fused(x), expected, rtol=1e-5, atol=1e-5)
    left = sorted(name for name, part in fused.named_modules(remove_duplicate=False) if isinstance(part, _BatchNorm))
    assert left == ['again.1', 'before.0', 'groups.1', 'shared', 'swapped.bn', 'twice.1', 'watched.1']


def test_training_is_refused_also_inside_a_wrapper(build, make_frame):
    model = build('lidar/pillar04_second_secfpn_tiny-synthetic.py')
    wrapper = nn.ModuleDict(dict(module=model))
    cfg = Config(dict(custom_hooks=[dict(type='SessionResetHook')]))
    apply_fuse(cfg)
    hook = HOOKS.build(cfg.custom_hooks[-1])
    runner = SimpleNamespace(model=wrapper, logger=SimpleNamespace(info=lambda text: None), hooks=[EMAHook()])
    with pytest.raises(UserError, match='does not go with EMAHook'):
        hook.before_test(runner)
    weights = model.state_dict()
    runner.hooks = []
    hook.before_test(runner)
    assert isinstance(model.pts_voxel_encoder, RealPointEncoder)
    for part in (wrapper, model):
        with pytest.raises(RuntimeError, match='cannot be trained'):
            part.train()
        assert not part.eval().training
    with pytest.raises(RuntimeError, match='load them first, then fuse'):
        load_state_dict(model, weights)
    with pytest.raises(RuntimeError, match='no losses'):
        model(**model.data_preprocessor(pseudo_collate([[make_frame('scene', 0)]])), mode='loss')
    assert not any(parameter.requires_grad for parameter in model.parameters())
