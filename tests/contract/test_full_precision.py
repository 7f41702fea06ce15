"""Every place where geometry and similarity multiply does so in full precision, forward and backward; the network does not."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.config import ConfigDict
from torch.utils._python_dispatch import TorchDispatchMode

from projects import geometry
from projects.encodings import build_encoding
from projects.encodings.view_sources import camera_views
from projects.geometry.projection import apply_homography, project_to_image
from projects.memfusion.fusion import FuTrPlusPlus
from projects.memfusion.fusion.calib_refine import rigid_from_twist
from projects.memfusion.fusion.film import modulate
from projects.memfusion.fusion.token_grid import _pool
from projects.memfusion.memory.bev_network import BEVMemoryNetwork
from projects.memfusion.memory.consolidation import consolidate
from projects.memfusion.memory.similarity import affinity_of, read_memory
from projects.memfusion.memory.xmem.network import KeyProjection
from projects.memfusion.structures import Calibration

PRODUCTS = ('mm', 'bmm', 'addmm', 'baddbmm', 'mv', 'addmv', 'dot', 'convolution', 'convolution_backward', 'linalg_matrix_exp',
            '_scaled_dot_product_attention_math')
RANGE = (-8.0, -8.0, -3.0, 8.0, 8.0, 3.0)


class Products(TorchDispatchMode):
    """Notes every product of float32, and whether TF32 is allowed for it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in PRODUCTS and any(isinstance(arg, torch.Tensor) and arg.dtype == torch.float32 for arg in args):
            self.seen.append((name, torch.backends.cudnn.allow_tf32))
        return func(*args, **(kwargs or {}))


def run(function):
    """The products of a forward and of a backward pass."""
    with Products() as forward:
        out = function()
    parts = [part for part in (out if isinstance(out, tuple) else (out,)) if part.requires_grad]
    with Products() as backward:
        torch.autograd.backward([part.sum() for part in parts])
    return forward.seen, backward.seen


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def rig(frames=1):
    yaw = [0.0, 0.5 * math.pi]
    poses = [torch.tensor([[math.sin(a), -math.cos(a), 0, 0], [0, 0, -1.0, 0], [math.cos(a), math.sin(a), 0, 0], [0, 0, 0, 1]])
             for a in yaw]
    intrinsics = torch.tensor([[48.0, 0, 47.5], [0, 48, 31.5], [0, 0, 1]])
    return Calibration.from_matrices(intrinsics.expand(frames, 2, 3, 3), torch.stack(poses).expand(frames, 2, 4, 4),
                                     torch.tensor([64, 96]).expand(frames, 2, 2))


def learned_rig():
    """A rig whose pose is learned, so that there is a gradient to follow."""
    return rig().with_noise(torch.eye(4).expand(1, 2, 4, 4) + 0.01 * draw(1, 2, 4, 4))


def keys(count):
    return draw(1, 8, count), draw(1, 8, count, seed=1).sigmoid(), draw(1, 8, 40, seed=2), draw(1, 1, 40, seed=3).square() + 1


def posed_heads(per):
    """PRoPE by camera or by token, with a scale that learns."""
    seen = camera_views(rig().views(), (3, 4))
    encoding = build_encoding(dict(type='PRoPE', trans_norm='learned'))
    return encoding.bind(seen if per == 'camera' else seen.as_tokens(), seen, 2, 16)


CASES = dict(
    warp_bev=lambda: geometry.warp_bev(draw(1, 3, 8, 8), torch.eye(4)[None], RANGE),
    move_positions=lambda: geometry.move_positions(draw(1, 4, 4, 2), draw(1, 4, 4)),
    transform_points=lambda: geometry.transform_points(draw(4, 4), draw(5, 3)),
    invert_rigid=lambda: geometry.invert_rigid(draw(2, 4, 4)),
    project_to_image=lambda: project_to_image(
        draw(2, 5, 3) + torch.tensor([0, 0, 5.0]), draw(2, 4, 4), torch.zeros(2, dtype=torch.int64), torch.zeros(2, 5),
        torch.full((2,), 9.0))[0],
    apply_homography=lambda: apply_homography(draw(2, 4, 4), draw(2, 5, 2)),
    project=lambda: learned_rig().project(5 * draw(1, 30, 3))[0],
    project_cam=lambda: learned_rig().project_cam(learned_rig().to_cam(5 * draw(1, 30, 3)))[0],
    unproject=lambda: learned_rig().unproject(30 * draw(1, 2, 6, 2), torch.ones(1, 2, 6)),
    rays=lambda: learned_rig().rays((3, 4), normalise=True),
    moved=lambda: learned_rig().moved(draw(1, 4, 4)).bev_aug,
    with_noise=lambda: learned_rig().with_noise(draw(1, 2, 4, 4)).calib_noise,
    read=lambda: read_memory(*keys(30), draw(1, 6, 40)),
    read_some=lambda: read_memory(*keys(300), draw(1, 6, 40), top_k=4, memory_valid=torch.arange(40)[None] < 30,
                                  return_usage=True)[0],
    affinity=lambda: affinity_of(*keys(30)),
    consolidate=lambda: consolidate(
        keys(40)[0], keys(40)[3], keys(40)[1], draw(1, 1, 6, 40), torch.arange(40.0)[None], num_prototypes=5).value,
    xmem_keys=lambda: KeyProjection(6, 4)(draw(1, 6, 4, 4)),
    film=lambda: modulate(draw(1, 3, 4, 4), draw(1, 2, 6), draw(1, 2, 16).sigmoid()),
    tokens=lambda: _pool(draw(1, 2, 5, 8, 12), torch.rand(1, 2, 2, 8), torch.rand(1, 2, 2, 12)),
    twist=lambda: rigid_from_twist(draw(2, 6)),
    keys_by_camera=lambda: posed_heads('camera').keys(draw(1, 2, 24, 16)),
    queries_by_token=lambda: posed_heads('token').queries(draw(1, 2, 24, 16)),
)
DOUBLE = ('warp_bev', 'unproject', 'rays', 'moved', 'with_noise', 'twist')  # their products are float64


@pytest.mark.parametrize('case', CASES)
def test_all_products_are_exact(case):
    assert torch.backends.cudnn.allow_tf32, 'torch\'s default'
    forward, backward = run(CASES[case])
    assert case in DOUBLE or (forward and backward), 'nothing was looked at'
    assert not any(allowed for _, allowed in forward + backward)
    assert torch.backends.cudnn.allow_tf32


def test_reads_without_gradient_are_exact():
    with torch.no_grad(), Products() as seen:
        read_memory(*keys(300), draw(1, 6, 40))
    assert len(seen.seen) == 6 and not any(allowed for _, allowed in seen.seen)


def test_keys_are_projected_exactly_and_the_encoder_is_free():
    network = BEVMemoryNetwork(in_channels=3, key_dim=4, value_dim=4, hidden_dim=4, feature_dim=8)
    forward, backward = run(lambda: (lambda q: (q.key, q.shrinkage, q.selection))(network.encode_query(draw(1, 3, 16, 16))))
    for seen in (forward, backward):
        assert [allowed for _, allowed in seen].count(False) == 3  # key, shrinkage, selection
        assert [allowed for _, allowed in seen].count(True) == 4  # patches, shortcut, two convolutions


def test_fusion_projects_its_pillars_and_tokens_exactly(monkeypatch):
    notes = []

    class Look(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            notes.append(('forward', torch.backends.cudnn.allow_tf32))
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            notes.append(('backward', torch.backends.cudnn.allow_tf32))
            return gradient

    for name in ('transform_points', 'apply_homography', 'project_to_image'):
        original = getattr(geometry.projection if name != 'transform_points' else geometry.rigid, name)

        def looked_at(*args, original=original):
            out = original(*args)
            return (Look.apply(out[0]), *out[1:]) if isinstance(out, tuple) else Look.apply(out)

        monkeypatch.setattr(f'projects.memfusion.structures.calibration.{name}', looked_at)
    torch.manual_seed(0)
    layer = FuTrPlusPlus(**ConfigDict(
        bev_channels=6, img_channels=5, point_cloud_range=RANGE, strides=(8,), tokens=dict(grid=2, dim=16),
        select=dict(kind='all'), sample=dict(num_heads=4, num_points=2), film=dict(kind='per_camera_gated'),
        calib_refine=dict(kind='pose', grid=(2, 4), hidden_channels=8, depths_m=(4.0, 8.0))))
    for parameter in layer.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    layer.eval()(draw(1, 6, 8, 8), [draw(1, 2, 5, 8, 12)], rig()).sum().backward()
    assert {kind for kind, _ in notes} == {'forward', 'backward'} and not any(allowed for _, allowed in notes)
    assert sum(kind == 'backward' for kind, _ in notes) >= 6
