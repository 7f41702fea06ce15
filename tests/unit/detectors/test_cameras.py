"""The detector with cameras: the LiDAR path is untouched without them, everything learns, memory holds the fused BEV."""

from __future__ import annotations

import copy
import re
import sys
from dataclasses import replace
from urllib.error import URLError

import numpy as np
import pytest
import small_models
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config, ConfigDict
from torch.utils._python_dispatch import TorchDispatchMode

from projects.memfusion.hooks.determinism_hook import ORDERED
from projects.memfusion.runtime.checkpoint import install_safe_loading
from projects.memfusion.runtime.errors import UserError, explain
from projects.memfusion.structures import Calibration
from projects.memfusion.structures.camera_frame import CameraFrame
from projects.memfusion.structures.image_labels import ImageLabels

CONFIG = 'configs/fusion/futrpp-xmem-residual_r18_pillar04_second_secfpn_tiny-synthetic.py'
SMALL = {**small_models.SMALL, **small_models.CAMERAS, **small_models.MEMORY}
SIZES = dict(CAM_FRONT=(64, 96), CAM_LEFT=(48, 64))


def rig():
    """A camera that looks forward and one that looks left, 1 m above the LiDAR; images of two sizes."""
    ahead = np.array([[1.0, 0, 0, 0], [0, 0, -1, 1], [0, 1, 0, 0], [0, 0, 0, 1]])  # LiDAR x right, y forward, z up
    left = ahead @ np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    return Calibration.from_info({
        name: dict(cam2img=[[width / 2, 0, width / 2], [0, width / 2, height / 2], [0, 0, 1]], lidar2cam=matrix, height=height,
                   width=width)
        for (name, (height, width)), matrix in zip(SIZES.items(), (ahead, left))})


@pytest.fixture
def make_camera_frame(make_frame):
    def make(scene, index, masked=(), seed=None, **options):
        frame = make_frame(scene, index, **options)
        generator = torch.Generator().manual_seed(100 * index + 7 if seed is None else seed)
        images = tuple(torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in SIZES.values())
        calibration = rig()
        valid = torch.tensor([[name not in masked for name in SIZES]])
        frame['inputs']['cameras'] = CameraFrame(images, replace(calibration, cam_valid=valid))
        frame['data_samples'].set_field(tuple(
            ImageLabels(torch.tensor([[5.0, 5.0, 30.0, 25.0]]), torch.tensor([1]), torch.tensor([12.0]),
                        torch.randint(0, 3, size, generator=generator).to(torch.uint8)) for size in SIZES.values()),
            'gt_img_labels')
        return frame

    return make


@pytest.fixture
def fused(repo):
    """fused(changes): reproducible weights, none of which is zero; in eval mode."""
    from mmengine.registry import init_default_scope
    init_default_scope('mmdet3d')

    def make(random=True, **changes):
        cfg = Config.fromfile(repo / CONFIG)
        cfg.merge_from_dict(dict(model=SMALL))
        for key, value in changes.items():
            cfg.model[key] = ConfigDict(value) if isinstance(value, dict) else value
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        generator = torch.Generator().manual_seed(1)
        for name, value in sorted(model.state_dict().items()):
            if random and value.dtype.is_floating_point and 'log_locality' not in name:
                noise = torch.rand(value.shape, generator=generator) * 0.2
                value.add_(noise if 'var' in name else noise - 0.1)
        return model.eval()

    return make


def fused_bev(model, collated, clips):
    with torch.no_grad():
        return model.encode(collated(model, clips)['inputs']).bev


def test_cameras_change_the_features_and_masked_ones_do_not(fused, collated, make_camera_frame):
    model = fused()
    seen = fused_bev(model, collated, [[make_camera_frame('a', 1)]])
    other = fused_bev(model, collated, [[make_camera_frame('a', 1, seed=3)]])
    masked = fused_bev(model, collated, [[make_camera_frame('a', 1, masked=SIZES)]])
    assert (seen - other).abs().max() > 1e-3
    model.fusion_layer = None
    lidar_only = fused_bev(model, collated, [[make_camera_frame('a', 1)]])
    assert torch.equal(masked, lidar_only) and (seen - lidar_only).abs().max() > 1e-3


def test_before_training_it_is_the_lidar_only_detector(fused, collated, make_camera_frame):
    model = fused(random=False)
    bev = fused_bev(model, collated, [[make_camera_frame('a', 1)]])
    model.fusion_layer = None
    assert torch.equal(bev, fused_bev(model, collated, [[make_camera_frame('a', 1)]]))


def test_a_batch_is_its_samples(fused, collated, make_camera_frame):
    model = fused()
    clips = [[make_camera_frame('a', 1)], [make_camera_frame('b', 2, masked=['CAM_LEFT'])], [make_camera_frame('c', 3)]]
    together = fused_bev(model, collated, clips)
    alone = torch.cat([fused_bev(model, collated, [clip]) for clip in clips])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_streaming_remembers_the_fused_features(fused, collated, predicted, make_camera_frame):
    model = fused()
    frames = [make_camera_frame('a', i, masked=['CAM_FRONT'] if i == 1 else ()) for i in range(3)]
    for frame in frames:
        last, _ = predicted(model, [[frame]])
    data = collated(model, [frames])
    with torch.no_grad():
        clip = model.encode(data['inputs'])
        window, _ = model.remember_clip(clip, data['data_samples'])
    torch.testing.assert_close(last, window.bev[-1:], atol=1e-4, rtol=1e-5)  # kernels for three frames and for one: 4e-6
    model.session.clear()
    blind = copy.deepcopy(frames)
    blind[0]['inputs']['cameras'] = make_camera_frame('a', 0, seed=9)['inputs']['cameras']
    for frame in blind:
        changed, _ = predicted(model, [[frame]])
    assert (changed - last).abs().max() > 1e-4  # the first frame's images are still felt in the third


def without_gradient(model, collated, clips):
    model.train()
    model.zero_grad()
    inner = getattr(model, 'module', model)
    loss, _ = inner.parse_losses(model(**collated(inner, clips, True), mode='loss'))
    loss.backward()
    return [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None], float(loss.detach())


TASKS = dict(
    boxes=dict(type='ImageCenterHead', in_channels=16, num_classes=10, stride=8, feat_channels=8),
    sem=dict(type='ImageSegHead', in_channels=16, num_classes=3, stride=8, channels=8),
    occ=dict(type='BEVSegHead', in_channels=24, classes=list('abcdefghij'), groups=dict(all=list('abcdefghij')), channels=8))


@pytest.mark.parametrize('case', ['seen', 'masked', 'padded', 'last frame dropped', 'no points', 'masked, no points'])
@pytest.mark.parametrize('film', ['off', 'per_camera_gated'])
def test_every_parameter_gets_a_gradient(fused, collated, make_camera_frame, case, film):
    fusion = {**SMALL['fusion_layer'], 'type': 'FuTrPlusPlus', 'strides': (8,), 'film': dict(kind=film),
              'calib_refine': dict(kind='pose', confidence=True)}
    model = fused(fusion_layer=fusion, task_heads=TASKS)
    masked, points = SIZES if 'masked' in case else (), 0 if 'no points' in case else 3000
    valid = [case != 'padded', case != 'last frame dropped']
    clips = [[make_camera_frame('a', i, masked=masked, valid=valid[i], points=points) for i in range(2)]]
    missing, loss = without_gradient(model, collated, clips)
    assert missing == [] and np.isfinite(loss)


@pytest.mark.parametrize('layer', [
    dict(type='BEVFormerLiteFusion', layers=dict(num_layers=1, dim=16, num_heads=2, ffn_channels=8)),
    dict(type='PETRv2Fusion', layers=dict(num_layers=1, dim=16, num_heads=2, ffn_channels=8, query_grid=(4, 4)),
         embedding=dict(depths=4))], ids=lambda layer: layer['type'])
def test_queries_of_the_bev_learn_without_points_and_cameras(fused, collated, make_camera_frame, layer):
    layer = dict(layer, bev_channels=24, img_channels=16, strides=(8,))
    with pytest.raises(ValueError, match=rf"{layer['type']}. makes BEV features of the cameras alone.*query_init='lidar'"):
        fused(fusion_layer=dict(layer, query_init='learned'))
    model = fused(fusion_layer=layer)
    clips = [[make_camera_frame('a', i, masked=SIZES, points=0) for i in range(2)]]
    missing, loss = without_gradient(model, collated, clips)
    assert missing == [] and np.isfinite(loss)


def test_images_of_context_count_no_more_alone_than_in_a_batch(fused, collated, make_camera_frame):
    """A clip whose last frame was dropped has nothing to learn from images: its context frame's do not stand in for them."""
    model = fused(task_heads=TASKS)
    assert model.grad_frames == 1
    clip = [make_camera_frame('a', 0), make_camera_frame('a', 1, valid=False)]
    model.train()
    losses = model(**collated(model, [clip], True), mode='loss')
    for name in ('boxes.loss_img_heatmap', 'sem.loss_img_seg', 'loss_fusion_heatmap'):
        assert torch.as_tensor(losses[name]).sum() == 0, name
    assert torch.as_tensor(losses['occ.loss_bev_seg_bce']).sum() > 0, 'the BEV of the context frame is learned from'


def test_task_heads_have_losses_and_predictions_by_name(fused, collated, make_camera_frame):
    model = fused(task_heads=TASKS)
    clips = [[make_camera_frame('a', i) for i in range(2)]]
    model.train()
    losses = model(**collated(model, clips, True), mode='loss')
    for name in ('boxes.loss_img_heatmap', 'sem.loss_img_seg', 'occ.loss_bev_seg_bce', 'loss_fusion_heatmap'):
        assert torch.as_tensor(losses[name]).sum() > 0, name
    model.eval()
    with torch.no_grad():
        sample, = model(**collated(model, [clips[0][:1]]), mode='predict')
    assert sample.pred_bev_seg.shape == (1, 32, 32) and len(sample.pred_img_boxes) == 2
    assert sample.pred_img_sem_seg.shape[0] == 2


def test_a_frozen_head_learns_nothing(fused, collated, make_camera_frame):
    model = fused(task_heads=TASKS, train_cfg=dict(frozen=['task_heads.sem', 'img_backbone'], pts=None))
    assert not any(p.requires_grad for p in model.task_heads['sem'].parameters())
    assert not model.train().img_backbone.bn1.training


def test_cameras_without_a_backbone_and_a_backbone_without_cameras(fused, collated, make_frame):
    with pytest.raises(ValueError, match='fusion_layer needs images.*img_backbone'):
        fused(img_backbone=None, img_neck=None)
    with pytest.raises(ValueError, match='LoadMultiViewImages'):
        fused_bev(fused(), collated, [[make_frame('a', 1)]])


def test_checkpointing_the_image_backbone_changes_no_gradient(repo, fused, collated, make_camera_frame):
    clips = [[make_camera_frame('a', i) for i in range(2)]]
    found = []
    for with_cp in (False, True):
        backbone = Config.fromfile(repo / CONFIG).model.img_backbone.to_dict()
        model = fused(img_backbone={**backbone, 'base_channels': 8, 'with_cp': with_cp}, task_heads=TASKS)
        runs = []
        model.img_backbone.layer2[0].conv1.register_forward_hook(lambda *args, runs=runs: runs.append(1))
        torch.manual_seed(0)  # some active cells are drawn
        missing, loss = without_gradient(model, collated, clips)
        found.append((loss, {name: p.grad for name, p in model.named_parameters()}, len(runs)))
        assert missing == []
    (loss, plain, once), (same, checkpointed, again) = found
    assert again == once + 1, 'activations were computed anew in the backward pass'
    assert loss == same
    for name, gradient in plain.items():
        # The same terms, summed in another order: 3e-7 of the largest entry. A small entry is the rest of large ones.
        assert (checkpointed[name] - gradient).abs().max() <= 1e-5 * gradient.abs().max(), name
    assert plain['img_backbone.layer1.0.conv1.weight'].abs().max() > 1e-3


@pytest.fixture
def one_process():
    """A process group of this process alone: DDP then waits for every gradient, as it does among many."""
    torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def spoil(level):
    """A forward hook that makes one level of the image branch infinite."""
    def hook(module, inputs, levels):
        return tuple(one * torch.inf if i == level else one for i, one in enumerate(levels))

    return hook


TOKENS_OF_LEVEL_1 = dict(strides=(8, 16), tokens=dict(grid=2, dim=16, level=1), sample=dict(kind='tokens', num_heads=2))


@pytest.mark.parametrize('neck, unread, fusion', [
    pytest.param('FPN', 1, dict(strides=(8,)), id='FPN'), pytest.param('FPN', 0, TOKENS_OF_LEVEL_1, id='FPN-tokens'),
    pytest.param('ChannelMapper', 1, dict(strides=(8,)), id='ChannelMapper'),
    pytest.param(None, 0, dict(strides=(16,), levels=(1,)), id='no-neck-level-1')])
def test_what_nobody_reads_may_be_infinite(repo, fused, collated, make_camera_frame, one_process, neck, unread, fusion):
    """It changes no output, no loss and no gradient, and its parameters still have one: DDP waits for each, once."""
    cfg = Config.fromfile(repo / CONFIG).model
    backbone = {**cfg.img_backbone.to_dict(), 'base_channels': 8, 'with_cp': True}
    necks = dict(FPN=cfg.img_neck.to_dict(), ChannelMapper=dict(type='mmdet.ChannelMapper', num_outs=2, norm_cfg=None))
    neck_cfg = None if neck is None else {**necks[neck], 'in_channels': [16, 32], 'out_channels': 16}
    channels = (32, 16)[unread] if neck is None else 16  # the backbone's own, of the other level
    layer = {**SMALL['fusion_layer'], 'type': 'FuTrPlusPlus', 'img_channels': channels, **fusion}
    clips, found = [[make_camera_frame('a', i) for i in range(2)]], []
    for infinite in (False, True):
        model = fused(img_backbone=backbone, img_neck=neck_cfg, fusion_layer=layer)
        model = torch.nn.parallel.DistributedDataParallel(model, broadcast_buffers=False)
        if infinite:
            (model.module.img_backbone if neck is None else model.module.img_neck).register_forward_hook(spoil(unread))
        torch.manual_seed(0)  # some active cells are drawn
        for _ in range(2):  # DDP notices a missing gradient at the next step
            missing, loss = without_gradient(model, collated, clips)
        found.append((loss, {name: p.grad for name, p in model.named_parameters()}))
        assert missing == []
    (loss, plain), (same, spoilt) = found
    assert loss == same and np.isfinite(loss)
    for name, gradient in plain.items():
        assert torch.equal(gradient, spoilt[name]), name
    assert plain['module.img_backbone.layer1.0.conv1.weight'].abs().max() > 0


def test_a_dropped_last_frame_gives_checkpointed_parameters_one_gradient(repo, fused, collated, make_camera_frame, one_process):
    backbone = {**Config.fromfile(repo / CONFIG).model.img_backbone.to_dict(), 'base_channels': 8, 'with_cp': True}
    model = torch.nn.parallel.DistributedDataParallel(fused(img_backbone=backbone, task_heads=TASKS), broadcast_buffers=False)
    for _ in range(2):
        missing, loss = without_gradient(model, collated, [[make_camera_frame('a', i, valid=i == 0) for i in range(2)]])
    assert missing == [] and np.isfinite(loss)


@pytest.mark.parametrize('count', range(1, 9))
def test_any_number_of_cameras_of_mixed_sizes(fused, collated, predicted, make_frame, count):
    ahead, frame = rig(), make_frame('a', 0)
    sizes = [[64, 96], [48, 64]] * 4
    names = tuple(f'CAM_{number}' for number in range(count))
    calibration = replace(ahead.take_cameras([number % 2 for number in range(count)]), cam_names=names)
    generator = torch.Generator().manual_seed(0)
    images = tuple(torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes[:count])
    frame['inputs']['cameras'] = CameraFrame(images, calibration)
    model = fused()
    seen, (sample,) = predicted(model, [[frame]])
    assert torch.isfinite(sample.pred_instances_3d.bboxes_3d.tensor).all() and len(sample.pred_instances_3d) > 0
    masked = copy.deepcopy(frame)
    masked['inputs']['cameras'].calibration.cam_valid[:] = False
    model.session.clear()
    blind, (without,) = predicted(model, [[masked]])
    assert (seen - blind).abs().max() > 1e-3
    model.fusion_layer = None
    model.session.clear()
    lidar, (plain,) = predicted(model, [[masked]])
    assert torch.equal(blind, lidar)
    for name in ('scores_3d', 'labels_3d'):
        assert torch.equal(without.pred_instances_3d[name], plain.pred_instances_3d[name])
    assert torch.equal(without.pred_instances_3d.bboxes_3d.tensor, plain.pred_instances_3d.bboxes_3d.tensor)


def test_pretrained_weights_come_without_torchvision_and_failures_name_the_setting(fused, monkeypatch, tmp_path):
    """Through the loader of the tools; the file is put where the download would, then the download fails."""
    install_safe_loading()
    model, other = fused(random=False), fused()
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, 'torchvision', None)

    def fetch(url, path, progress):
        assert url.startswith('https://') and 'resnet18' in url
        torch.save(other.img_backbone.state_dict(), path)

    def fail(url, path, progress):
        raise URLError('no route to host')

    model.img_backbone.init_cfg = dict(type='Pretrained', checkpoint='torchvision://resnet18')
    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    model.init_weights()
    for name, value in other.img_backbone.state_dict().items():
        assert torch.equal(model.img_backbone.state_dict()[name], value)
    for checkpoint, words in (('torchvision://resnet50', 'resnet50.*no route to host.*model.img_backbone.init_cfg=None'),
                              ('torchvision://resnet51', 'no such model.*resnet50'),
                              (str(tmp_path / 'mine.pth'), 'mine.pth.*no such checkpoint file')):
        model = fused(random=False)
        model.img_backbone.init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
        monkeypatch.setattr(torch.hub, 'download_url_to_file', fail)
        with pytest.raises((ValueError, UserError)) as caught:
            model.init_weights()
        assert re.search(words, explain(caught.value))


@pytest.mark.parametrize('error', [URLError('no route to host'), ConnectionResetError(), FileNotFoundError('a.pth'),
                                   ModuleNotFoundError("No module named 'torchvision'")], ids=lambda e: type(e).__name__)
def test_weights_that_cannot_be_had(fused, monkeypatch, error):
    model = fused()
    checkpoint = 'torchvision://resnet18'
    model.img_backbone.init_cfg = dict(type='Pretrained', checkpoint=checkpoint)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr('mmengine.model.base_module.initialize', fail)
    other = fused()
    other.img_backbone.init_cfg = [dict(type='Kaiming', layer='Conv2d')]
    with pytest.raises(type(error)):  # another part's: what is wrong there is not told as the images'
        other.init_weights()
    with pytest.raises(ValueError, match=f'{checkpoint}.*img_backbone.init_cfg=None'):
        model.init_weights()


# -- deterministic algorithms -----------------------------------------------------------------------------------------
UNORDERED = dict(
    AvgPool3d=['avg_pool3d_backward'], AdaptiveAvgPool2d=['_adaptive_avg_pool2d_backward'],
    AdaptiveAvgPool3d=['_adaptive_avg_pool3d_backward'], MaxPool3d=['max_pool3d_with_indices_backward'],
    AdaptiveMaxPool2d=['adaptive_max_pool2d_backward'], FractionalMaxPool2d=['fractional_max_pool2d_backward'],
    FractionalMaxPool3d=['fractional_max_pool3d_backward'], MaxUnpool1d=['max_unpool2d'], MaxUnpool2d=['max_unpool2d'],
    MaxUnpool3d=['max_unpool3d'], interpolate=[f'upsample_{kind}_backward' for kind in (
        'linear1d', 'bilinear2d', 'bicubic2d', 'trilinear3d')],
    **{f'{kind}Pad{n}d': [f'{kind.lower()}_pad{n}d_backward'] for kind in ('Reflection', 'Replication') for n in (1, 2, 3)},
    NLLLoss=['nll_loss2d_forward'], CTCLoss=['_ctc_loss_backward'], EmbeddingBag=['_embedding_bag_dense_backward'],
    put_=['put_'], histc=['histc'], bincount=['bincount'], kthvalue=['kthvalue'], median=['median'],
    grid_sample=['grid_sampler_2d_backward', 'grid_sampler_3d_backward'], cumsum=['cumsum'], scatter_reduce=['scatter_reduce'],
    resize_=['resize_'])
"""What torch documents as raising an error on CUDA, and the operations behind it."""


class Unordered(TorchDispatchMode):
    """Notes which of UNORDERED run, even if on a CPU."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        summed = name != 'nll_loss2d_forward' or args[3] != 0  # reduction='none' adds nothing up
        real = name != 'cumsum' or args[0].is_floating_point()
        if summed and real and any(name in names for names in UNORDERED.values()):
            self.seen.add(name)
        return func(*args, **(kwargs or {}))


def test_the_list_of_torch_is_the_one_looked_at():
    told = torch.use_deterministic_algorithms.__doc__.split('operations will throw')[1].split('In addition')[0]
    names = set(re.findall(r'\* :(?:class|func):`torch\.(?:nn\.|Tensor\.|nn\.functional\.)*(\w+)`', told))
    assert {'NLLLoss', 'grid_sample', 'AdaptiveAvgPool2d'} <= names <= set(UNORDERED)


@pytest.mark.parametrize('ordered', [False, True])
def test_operations_without_a_deterministic_algorithm_are_listed(fused, collated, make_camera_frame, monkeypatch, ordered):
    """A training step of the gated detector with FuTr++ and with FuTr, and of all further heads."""
    monkeypatch.setattr('projects.geometry.resampling._wants_order', lambda maps: ordered)
    plus = {**SMALL['fusion_layer'], 'type': 'FuTrPlusPlus', 'strides': (8,), 'calib_refine': dict(kind='pose')}
    mean = dict(type='FuTr', bev_channels=24, img_channels=16, strides=(8,), dim=16, num_heads=2)
    clips, losses = [[make_camera_frame('a', i) for i in range(2)]], []
    with Unordered() as found:
        for layer in (plus, mean):
            torch.manual_seed(0)
            losses.append(without_gradient(fused(fusion_layer=layer, task_heads=TASKS), collated, clips)[1])
    replaced_off_cpus = {name for name, where in ORDERED.items() if where.startswith('torch.')}  # by torch itself
    assert found.seen == (replaced_off_cpus if ordered else set(ORDERED)) and np.isfinite(losses).all()
