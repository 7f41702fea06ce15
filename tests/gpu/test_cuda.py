"""What only a GPU can show. Runs where there is one: `python -m pytest -m gpu`."""

import math

import pytest
import torch
import torch.nn.functional as F

from projects.benchmarks.gpu_check.run import run as run_checks
from projects.geometry import transform_points, warp_bev
from projects.geometry.projection import apply_homography
from projects.geometry.resampling import _pool_in_order, _sample_in_order
from projects.memfusion.memory.chunked_read import chunked_read
from projects.memfusion.memory.similarity import _fused_read, _validity, expand_memory, expand_query, read_memory
from projects.memfusion.memory.xmem.network import KeyProjection
from projects.memfusion.structures import Calibration

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')]


def test_what_needs_no_compiled_ops(repo):
    assert run_checks('cuda', repo) == []


def test_fused_read_equals_the_chunked_one():
    g = torch.Generator(device='cuda').manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g, device='cuda')

    query = expand_query(draw(2, 64, 1024), draw(2, 64, 1024).sigmoid()) / 8
    memory = expand_memory(draw(2, 64, 4096), draw(2, 1, 4096) ** 2 + 1)
    value = draw(2, 4096, 128)
    bias, _ = _validity(torch.rand(2, 4096, generator=g, device='cuda') > 0.5, query)
    chunked, _ = chunked_read(query, memory, value, bias, None, False)
    assert (_fused_read(query, memory, value, bias) - chunked).abs().max() < 1e-4 * chunked.abs().max()


# -- what follows looks at values and gradients -----------------------------------------------------------------------
RANGE = (-51.2, -51.2, -5.0, 51.2, 51.2, 3.0)


class Inputs:
    """Draws tensors on the GPU, the same in every run, and keeps them for their gradients."""

    def __init__(self):
        self.drawn = []

    def __call__(self, *shape):
        generator = torch.Generator().manual_seed(len(self.drawn))
        self.drawn.append(torch.randn(*shape, generator=generator).cuda().requires_grad_())
        return self.drawn[-1]


def run(function):
    """function(draw) -> its value, and the gradients of everything that it drew."""
    draw = Inputs()
    out = function(draw)
    out.square().sum().backward()
    return [out.detach(), *[drawn.grad for drawn in draw.drawn]]


def read(draw, **options):
    return read_memory(draw(2, 64, 1024), draw(2, 64, 1024).sigmoid(), draw(2, 64, 2048), draw(2, 1, 2048).square() + 1,
                       draw(2, 32, 2048), **options)


def project_keys(draw):
    torch.manual_seed(0)
    network = KeyProjection(64, 64).cuda()
    draw.drawn += network.parameters()
    return torch.cat(network(draw(2, 64, 32, 32)), dim=1)


def warp(draw):
    pose = torch.eye(4).repeat(2, 1, 1)
    pose[:, :2, :2] = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    return warp_bev(draw(2, 16, 64, 64), pose.cuda(), RANGE)


def rig(draw):
    """Two cameras, ahead and to the left, 1600 x 900 pixels, whose poses have a gradient."""
    poses = [torch.tensor([[math.sin(a), -math.cos(a), 0, 0], [0, 0, -1.0, 0], [math.cos(a), math.sin(a), 0, 0], [0, 0, 0, 1]])
             for a in (0.0, math.pi / 2)]
    intrinsics = torch.tensor([[1260.0, 0, 800], [0, 1260, 450], [0, 0, 1]]).expand(1, 2, 3, 3)
    calibration = Calibration.from_matrices(intrinsics, torch.stack(poses)[None], torch.tensor([900, 1600]).expand(1, 2, 2))
    return calibration.to('cuda').with_noise(torch.eye(4, device='cuda') + 1e-3 * draw(1, 2, 4, 4))


# -- TF32 -------------------------------------------------------------------------------------------------------------
@pytest.fixture
def choose():
    """choose(allowed): the user's settings of TF32; torch's own afterwards."""
    def settings(allowed):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed

    yield settings
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True


PRECISE = dict(
    read=read, read_top_k=lambda draw: read(draw, top_k=16), project_keys=project_keys, warp=warp,
    transform_points=lambda draw: transform_points(draw(4, 4), 50 * draw(1000, 3)),
    homography=lambda draw: apply_homography(torch.eye(4, device='cuda') + 1e-4 * draw(4, 4), 800 * draw(1000, 2)),
    project=lambda draw: rig(draw).project(30 * draw(1, 5000, 3))[0],
    unproject=lambda draw: rig(draw).unproject(800 * draw(1, 2, 500, 2), torch.full((1, 2, 500), 20.0, device='cuda')))


@pytest.mark.parametrize('case', PRECISE)
def test_what_the_user_allows_elsewhere_changes_no_bit(case, choose, deterministic):
    found = []
    for allowed in (False, True):
        choose(allowed)
        found.append(run(PRECISE[case]))
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (allowed, allowed)
    for exact, same in zip(*found, strict=True):
        assert torch.equal(exact, same)


def test_the_fused_read_is_exact_too(choose):
    """Its value: its gradient adds up in another order in every run."""
    found = []
    for allowed in (False, True):
        choose(allowed)
        with torch.no_grad():
            found.append(read(Inputs()))
    assert torch.equal(*found)


def test_tf32_would_be_seen(choose):
    """A plain product and a plain convolution do change on a card that has TF32."""
    if torch.cuda.get_device_capability()[0] < 8:
        pytest.skip('this card has no TF32')
    draw, found = Inputs(), []
    a, x, weight = draw(256, 256), draw(1, 64, 32, 32), draw(64, 64, 3, 3)
    for allowed in (False, True):
        choose(allowed)
        found.append((a @ a, F.conv2d(x, weight, padding=1)))
    assert all((exact - rounded).abs().max() > 1e-4 for exact, rounded in zip(*found, strict=True))


# -- deterministic algorithms -----------------------------------------------------------------------------------------
@pytest.fixture
def deterministic(monkeypatch):
    """torch raises an error where something has no deterministic algorithm."""
    monkeypatch.setenv('CUBLAS_WORKSPACE_CONFIG', ':4096:8')
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def cross_entropy(draw):
    target = torch.randint(0, 8, (2, 64, 64), generator=torch.Generator().manual_seed(0)).cuda()
    return F.cross_entropy(draw(2, 8, 64, 64), target, reduction='none').sum()


ORDERED = dict(
    sample=lambda draw: _sample_in_order(draw(2, 8, 32, 32), draw(2, 300, 300, 2), 'border'), warp=warp,
    pool=lambda draw: _pool_in_order(draw(2, 8, 33, 47), (16, 16)), cross_entropy=cross_entropy, read=read,
    enlarge=lambda draw: F.interpolate(draw(2, 8, 32, 32), scale_factor=4, mode='bilinear', align_corners=False))


@pytest.mark.parametrize('case', ORDERED)
def test_gradients_are_the_same_in_every_run(case, deterministic):
    first, *others = [run(ORDERED[case]) for _ in range(3)]
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
