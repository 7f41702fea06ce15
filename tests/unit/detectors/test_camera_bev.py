"""BEV features of the cameras alone: a fusion layer that makes them is all a detector without LiDAR needs."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModule
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn

from projects.memfusion.fusion import FusionLayer, FusionOutput
from projects.memfusion.heads import SceneHead
from projects.memfusion.structures import Calibration, CameraFrame


@MODELS.register_module()
class ToyLift(FusionLayer):
    """A cell shows the mean of the images that are there, times what the layer knows of the cell."""

    grid_keys = dict(point_cloud_range='point_cloud_range', bev_shape='bev_shape')

    def __init__(self, bev_channels, img_channels, point_cloud_range, bev_shape, strides, levels=None, makes_bev=True) -> None:
        super().__init__(bev_channels, img_channels, point_cloud_range, strides, levels)
        self.makes_bev = makes_bev
        self.project, self.cells = nn.Linear(img_channels, bev_channels), nn.Parameter(torch.rand(*bev_shape))

    def fuse_levels(self, bev_lidar, maps, calibration):
        return FusionOutput(self.project(maps[0].mean(dim=(1, 3, 4)))[..., None, None] * self.cells, {})


@MODELS.register_module()
class ToyLevelHead(BaseModule, SceneHead):
    """Reads one level of the images and nothing else."""

    needs_levels = True

    def __init__(self, read_level: int, in_channels: int, train_cfg=None, test_cfg=None) -> None:
        super().__init__()
        self.read_levels = (read_level,)
        self.point = nn.Linear(in_channels, 3)

    def forward(self, features, readout, truth):
        return self.point(features.levels[self.read_levels[0]].mean(dim=(1, 3, 4)))

    def loss_by_feat(self, outputs, samples):
        return dict(loss_toy=outputs.square().mean())

    def predict_by_feat(self, outputs, metas):
        return [InstanceData(bboxes_3d=meta['box_type_3d'](torch.ones(0, 9), box_dim=9), scores_3d=torch.zeros(0),
                             labels_3d=torch.zeros(0, dtype=torch.long)) for meta in metas]


CENTER_HEAD = dict(
    type='InitCenterHead', in_channels=8, tasks=[dict(num_class=10, class_names=list('abcdefghij'))],
    common_heads=dict(reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2), vel=(2, 2)), share_conv_channel=8,
    bbox_coder=dict(type='CenterPointBBoxCoder', max_num=20, score_threshold=0.0, code_size=9),
    separate_head=dict(type='SeparateHead', init_bias=-2.19, final_kernel=3, head_conv=8),
    loss_cls=dict(type='mmdet.GaussianFocalLoss', reduction='mean'),
    loss_bbox=dict(type='MaskedL1Loss', reduction='mean', loss_weight=0.25), norm_bbox=True)
CAMERAS_ONLY = dict(
    type='TemporalFusionDetector',
    grid=dict(point_cloud_range=[-25.6, -25.6, -5, 25.6, 25.6, 3], voxel_size=[0.8, 0.8, 8], out_size_factor=4),
    img_backbone=dict(type='mmdet.ResNet', depth=18, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1),
                      base_channels=8), img_neck=dict(type='mmdet.FPN', in_channels=[8, 16], out_channels=8, num_outs=2),
    fusion_layer=dict(type='ToyLift', bev_channels=8, img_channels=8, strides=(8,), levels=(1,)),
    pts_bbox_head=CENTER_HEAD, temporal=dict(type='ConvGRUFusion', in_channels=8, hidden_dim=8),
    train_cfg=dict(pts=dict(dense_reg=1, gaussian_overlap=0.1, max_objs=50, min_radius=2, code_weights=[1.0] * 10)),
    test_cfg=dict(pts=dict(max_per_img=50, max_pool_nms=False, min_radius=[4], score_threshold=0.0, nms_type='circle',
                           pre_max_size=20, post_max_size=10, nms_thr=0.2)),
    data_preprocessor=dict(type='ClipDataPreprocessor', voxel=False, mean=[0.0] * 3, std=[255.0] * 3, bgr_to_rgb=False,
                           pad_size_divisor=16))


def build(**changes):
    import projects.memfusion.register  # noqa: F401
    torch.manual_seed(0)
    return MODELS.build({**copy.deepcopy(CAMERAS_ONLY), **copy.deepcopy(changes)}).eval()


@pytest.fixture
def clip(make_frame):
    """clip(scene, length, missing): frames with two cameras and no points."""
    def make(scene, length, missing=()):
        frames = []
        for index in range(length):
            frame = make_frame(scene, index, valid=index not in missing)
            pixels = torch.Generator().manual_seed(31 * index + ord(scene[0]))
            rig = Calibration.from_matrices(torch.eye(3).repeat(1, 2, 1, 1) * 20 - torch.diag(torch.tensor([0.0, 0, 19])),
                                            torch.eye(4).repeat(1, 2, 1, 1), torch.tensor([[[32, 48], [32, 48]]]))
            frame['inputs'] = dict(cameras=CameraFrame(tuple(
                torch.randint(0, 256, (3, 32, 48), generator=pixels, dtype=torch.uint8) for _ in range(2)), rig))
            frames.append(frame)
        return frames
    return make


def collate(model, clips, training=False):
    return model.data_preprocessor(pseudo_collate(copy.deepcopy(clips)), training)


def test_streamed_frames_equal_the_clip_and_the_images_have_a_say(clip):
    model, frames = build(), clip('a', 3)
    with torch.no_grad():
        data = collate(model, [frames])
        encoded = model.encode(data['inputs'])
        assert encoded.bev.shape == (1, 3, 8, 16, 16) and encoded.observed is None
        assert (encoded.bev[0, 0] - encoded.bev[0, 1]).abs().max() > 1e-3
        window, _ = model.remember_clip(encoded, data['data_samples'])
        seen = []
        model.pts_bbox_head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][0].clone()))
        for frame in frames:
            found, = model(**collate(model, [[frame]]), mode='predict')
    torch.testing.assert_close(seen[-1], window.bev[-1:], atol=1e-5, rtol=0)
    assert len(found.pred_instances_3d) > 0


@pytest.mark.parametrize('missing', [(), (1,), (0, 1)])
def test_every_parameter_learns_whatever_is_missing(clip, missing):
    model = build().train()
    losses = model(**collate(model, [clip('a', 2, missing), clip('b', 2, missing)], training=True), mode='loss')
    model.parse_losses(losses)[0].backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_what_nobody_reads_owes_its_gradients_through_what_is_read(clip):
    """A head on the second level alone: the first one's parameters have a gradient of 0."""
    head = dict(type='ToyLevelHead', read_level=1, in_channels=8)
    model = build(fusion_layer=None, temporal=None, pts_bbox_head=head).train()
    losses = model(**collate(model, [clip('a', 1)], training=True), mode='loss')
    model.parse_losses(losses)[0].backward()
    unread = model.img_neck.fpn_convs[0].conv.weight.grad
    assert unread is not None and unread.abs().max() == 0
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_one_bev_serves_heads_for_boxes_segmentation_and_occupancy(clip):
    cells = dict(type='BEVSegHead', in_channels=8, channels=8, classes=list('abcdefghij'))
    heads = dict(seg=dict(**cells, groups=dict(one=['a'], two=['b'])),
                 occupancy=dict(**cells, groups=dict(any=list('abcdefghij')), field='pred_occupancy'))
    model = build(task_heads=heads).train()
    losses = model(**collate(model, [clip('a', 2)], training=True), mode='loss')
    for name in ('task0.loss_heatmap', 'seg.loss_bev_seg_bce', 'occupancy.loss_bev_seg_bce'):
        assert losses[name] > 0, name
    with torch.no_grad():
        found, = model.eval()(**collate(model, [clip('a', 1)]), mode='predict')
    assert found.pred_bev_seg.shape == (2, 16, 16) and found.pred_occupancy.shape == (1, 16, 16)
    assert not torch.equal(found.pred_bev_seg[:1], found.pred_occupancy)
    heads['occupancy'].pop('field')
    with pytest.raises(ValueError, match=r"\['seg', 'occupancy'\] write the same field.*pred_bev_seg"):
        build(task_heads=heads)


def test_a_config_of_cameras_alone_learns_and_streams_from_its_data_set(repo, nano_infos_root):
    """As the Runner does it: loaders of the config, augmented clips in training, scenes in time order in testing."""
    cfg = Config.fromfile(repo / 'configs/fusion/bevformer-lite-camera_r18_tiny-synthetic.py')
    cfg.model.grid.voxel_size = [0.8, 0.8, 8.0]
    cfg.model.fusion_layer.layers.num_layers = 1
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    loaders = [cfg.train_dataloader, cfg.val_dataloader]
    for loader in loaders:
        loader.update(batch_size=1, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = f'{nano_infos_root}/'
    learn, test = (Runner.build_dataloader(loader, seed=0) for loader in loaders)
    losses = model.train()(**model.data_preprocessor(next(iter(learn)), True), mode='loss')
    model.parse_losses(losses)[0].backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    found = [model.eval().test_step(batch)[0] for batch in itertools.islice(test, 2)]
    assert [sample.frame_index for sample in found] == [0, 1] and len({sample.scene_token for sample in found}) == 1
    assert model.session[found[0].scene_token].state.ages == (2,)


@pytest.mark.parametrize('kind', ['FuTr', 'FuTrPlusPlus'])
def test_layers_that_need_lidar_are_named(kind):
    with pytest.raises(ValueError, match=rf'fusion_layer \({kind}\) changes the BEV features of the LiDAR.*pts_voxel_encoder'):
        build(fusion_layer=dict(type=kind, bev_channels=8, img_channels=8, strides=(8,)))


def test_a_layer_and_its_input_must_agree():
    layer = ToyLift(8, 8, (-1, -1, -1, 1, 1, 1), (4, 4), (8,), makes_bev=False)
    rig = Calibration.from_matrices(torch.eye(3)[None, None], torch.eye(4)[None, None], torch.tensor([[[32, 48]]]))
    with pytest.raises(ValueError, match='changes the BEV features of the LiDAR, but was given none'):
        layer(None, [torch.zeros(1, 1, 8, 4, 6)], rig)
    layer.makes_bev = True
    with pytest.raises(ValueError, match='of the cameras alone, but was given those of the LiDAR'):
        layer(torch.zeros(1, 8, 4, 4), [torch.zeros(1, 1, 8, 4, 6)], rig)
