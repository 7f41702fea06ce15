"""The step contract: a third kind of memory and a query head, cameras only, plug in by registry; who is told the truth."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, replace

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModule
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor, nn

from projects.geometry import transform_points
from projects.memfusion.heads import SceneHead, scene_head
from projects.memfusion.memory.slot import TemporalSlot, clock
from projects.memfusion.runtime.fuse import fuse_for_inference
from projects.memfusion.structures import Calibration, CameraFrame, Readout, SceneFeatures, TemporalState, empty_clock


# -- the toys: all that a new system has to bring ------------------------------------------------------------------------
@dataclass(frozen=True)
class ToyQueries(TemporalState):
    """points (B, K, 3) float64, global metres; embedding (B, K, D)."""

    points: Tensor
    embedding: Tensor


@MODELS.register_module()
class ToyQueryMemory(TemporalSlot):
    """Keeps the K surest queries of the last frame; they come back where the ego's motion puts them. No parameters."""

    needs_outputs = True

    def __init__(self, point_cloud_range, num_kept: int = 3, dim: int = 8) -> None:
        super().__init__(point_cloud_range)
        self.num_kept, self.dim = num_kept, dim

    def init_state(self, features: SceneFeatures) -> ToyQueries:
        batch, like = features.batch_size, features.any_tensor
        return ToyQueries(**empty_clock(batch, like), points=like.new_zeros(batch, self.num_kept, 3, dtype=torch.float64),
                          embedding=like.new_zeros(batch, self.num_kept, self.dim))

    def align(self, state, frames):
        return state.reset(frames.starts)

    def read(self, state, features, frames):
        points = transform_points(frames.bev_from_global, state.points).float()
        return Readout(queries=dict(points=points, embedding=state.embedding))

    def write(self, state, readout, outputs, frames, truth=None):
        best = outputs.raw['scores'].topk(self.num_kept, dim=1).indices[..., None]
        points = transform_points(frames.global_from_bev, outputs.raw['points'].double())
        embedding = outputs.raw['embedding'].gather(1, best.expand(-1, -1, self.dim)).detach()
        points = points.gather(1, best.expand(-1, -1, 3)).detach()
        return replace(state, points=points, embedding=embedding, **clock(frames, state))


@MODELS.register_module()
class ToyQueryHead(BaseModule, SceneHead):
    """Queries that look at the mean of the images; the memory's are appended, those of the truth too where it is told."""

    needs_levels = True
    grid_keys = dict(point_cloud_range='point_cloud_range')

    def __init__(self, point_cloud_range, in_channels: int, num_queries: int = 5, dim: int = 8, train_cfg=None,
                 test_cfg=None) -> None:
        super().__init__()
        self.point_cloud_range, self.told = point_cloud_range, []
        self.reference = nn.Parameter(torch.linspace(-9.0, 9.0, 3 * num_queries).view(num_queries, 3))
        self.embed, self.score, self.move = nn.Linear(in_channels, dim), nn.Linear(dim, 1), nn.Linear(dim, 3)

    def forward(self, features, readout, truth):
        self.told.append(truth)
        image = self.embed(features.levels[0].mean(dim=(1, 3, 4)))
        points = self.reference.expand(features.batch_size, -1, -1)
        embedding = image[:, None].expand(-1, points.shape[1], -1)
        if readout.queries:
            points = torch.cat([points, readout.queries['points']], dim=1)
            embedding = torch.cat([embedding, readout.queries['embedding'] + image[:, None]], dim=1)
        return dict(points=points + self.move(embedding), scores=self.score(embedding + points.mean(-1, keepdim=True))[..., 0],
                    embedding=embedding)

    def loss_by_feat(self, outputs, samples):
        target = outputs['points'].new_tensor([sum(len(s.gt_instances_3d) for s in samples)])
        return dict(loss_toy=outputs['points'].square().mean() + (outputs['scores'].sum() - target).abs().mean())

    def predict_by_feat(self, outputs, metas):
        boxes = torch.cat([outputs['points'], torch.ones_like(outputs['points']).repeat(1, 1, 2)], dim=-1)
        return [InstanceData(bboxes_3d=meta['box_type_3d'](box, box_dim=9), scores_3d=score.sigmoid(),
                             labels_3d=torch.zeros(len(box), dtype=torch.long))
                for box, score, meta in zip(boxes, outputs['scores'], metas)]


# -- the proof --------------------------------------------------------------------------------------------------------
TOY = dict(
    type='TemporalFusionDetector', grid=dict(point_cloud_range=[-25.6, -25.6, -5, 25.6, 25.6, 3], voxel_size=[0.8, 0.8, 8],
                                             out_size_factor=2),
    img_backbone=dict(type='mmdet.ResNet', depth=18, num_stages=1, strides=(1,), dilations=(1,), out_indices=(0,),
                      base_channels=8), temporal=dict(type='ToyQueryMemory'),
    pts_bbox_head=dict(type='ToyQueryHead', in_channels=8), data_preprocessor=dict(
        type='ClipDataPreprocessor', voxel=False, mean=[0.0] * 3, std=[255.0] * 3, bgr_to_rgb=False, pad_size_divisor=16))


@pytest.fixture
def toy():
    import projects.memfusion.register  # noqa: F401
    torch.manual_seed(0)
    return MODELS.build(copy.deepcopy(TOY)).eval()


@pytest.fixture
def clip(make_frame):
    """clip(scene, length, ...): frames with two cameras and no points."""
    def make(scene, length, start=0, missing=()):
        frames = []
        for index in range(start, start + length):
            frame = make_frame(scene, index, valid=index not in missing)
            pixels = torch.Generator().manual_seed(31 * index + len(scene) + ord(scene[0]))
            rig = Calibration.from_matrices(torch.eye(3).repeat(1, 2, 1, 1) * 20 - torch.diag(torch.tensor([0.0, 0, 19])),
                                            torch.eye(4).repeat(1, 2, 1, 1), torch.tensor([[[32, 48], [32, 48]]]))
            frame['inputs'] = dict(cameras=CameraFrame(tuple(
                torch.randint(0, 256, (3, 32, 48), generator=pixels, dtype=torch.uint8) for _ in range(2)), rig))
            frames.append(frame)
        return frames
    return make


def collate(model, clips, training=False):
    return model.data_preprocessor(pseudo_collate(copy.deepcopy(clips)), training)


def streamed(model, frames):
    with torch.no_grad():
        return [model(**collate(model, [[frame]]), mode='predict')[0].pred_instances_3d for frame in frames]


def test_queries_come_back_where_the_ego_motion_puts_them(toy, clip):
    """A query's point, carried over a frame, is the old one in the new frame: 2 m further back per frame of make_frame."""
    model = toy
    seen = []
    step = model.step
    model.step = lambda features, state, frames, truth=None: seen.append(step(features, state, frames, truth)) or seen[-1]
    found = streamed(model, clip('a', 3))
    for now, then in zip(seen[1:], seen):
        surest = then.outputs.raw['scores'][0].topk(3).indices
        expected = then.outputs.raw['points'][0, surest] - torch.tensor([2.0, 0, 0])
        torch.testing.assert_close(now.readout.queries['points'][0], expected, atol=1e-5, rtol=0)
    assert [len(one) for one in found] == [8, 8, 8] and model.session.keys() == {'a'}


def test_interleaved_scenes_equal_each_alone(toy, clip):
    a, b = clip('a', 3), clip('bb', 3)
    alone = [streamed(toy, a), (toy.session.clear(), streamed(toy, b))[1]]
    toy.session.clear()
    with torch.no_grad():
        for t, pair in enumerate(zip(a, b)):
            together = toy(**collate(toy, [[frame] for frame in pair]), mode='predict')
            for sample, single in zip(together, alone):
                boxes = sample.pred_instances_3d.bboxes_3d.tensor
                torch.testing.assert_close(boxes, single[t].bboxes_3d.tensor, atol=1e-5, rtol=0)


def test_every_parameter_learns_and_padding_is_no_history(toy, clip):
    losses = toy.train()(**collate(toy, [clip('a', 3), clip('bb', 3, missing=(1,))], training=True), mode='loss')
    toy.parse_losses(losses)[0].backward()
    assert [name for name, p in toy.named_parameters() if p.requires_grad and p.grad is None] == []
    with torch.no_grad():
        last = toy.eval()(**collate(toy, [clip('bb', 3, missing=(1,))]), mode='predict')
    assert toy.session['bb'].state.ages == (2,) and len(last[0].pred_instances_3d) == 8


def test_the_truth_reaches_head_and_write_in_training_and_nobody_in_eval_mode(toy, clip):
    told, write = [], toy.temporal.write
    toy.temporal.write = lambda state, readout, outputs, frames, truth=None: told.append(truth) or write(
        state, readout, outputs, frames, truth)
    toy.train()(**collate(toy, [clip('a', 2)], training=True), mode='loss')
    assert [None if one is None else [len(boxes) for boxes in one.boxes] for one in told] == [[8], [8]]
    assert [one is None for one in toy.pts_bbox_head.told] == [True, True, False]  # frame by frame as in testing, then once
    told.clear(), toy.pts_bbox_head.told.clear()
    data = collate(toy.eval(), [clip('a', 2)])
    with torch.no_grad():
        toy(**data, mode='predict'), toy.session.clear(), toy.remember_clip(toy.encode(data['inputs']), data['data_samples'])
    assert told == [None] * 4 and toy.pts_bbox_head.told == [None] * 4


def test_nobody_is_told_in_eval_mode_whatever_is_asked_for(toy, clip):
    data = collate(toy, [clip('a', 2)])
    toy(**data, mode='loss')
    assert toy.pts_bbox_head.told == [None] * 3


def test_context_frames_show_their_images(toy, clip):
    """With gradient through the last frame alone, memory sees the images of the frames before it all the same."""
    seen, read = [], toy.temporal.read
    toy.temporal.read = lambda state, features, frames: seen.append(features) or read(state, features, frames)
    toy.temporal.needs_levels = True
    data = collate(toy, [clip('a', 3)])
    with torch.no_grad():
        toy.remember_clip(toy.encode(data['inputs']), data['data_samples'])
        expected = [features.levels[0] for features in seen]
        seen.clear()
        toy.grad_frames = 1
        toy(**data, mode='loss')
    assert len(seen) == 3 and all(features.calibration.cam_valid.all() for features in seen)
    for features, wanted in zip(seen, expected):
        torch.testing.assert_close(features.levels[0], wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize('missing', [(0,), (1,), (2,), (0, 1, 2)])
def test_batches_of_dropped_frames_alone_stream_and_learn(missing, toy, clip):
    frames = clip('a', 3, missing=missing)
    frames[0]['data_samples'].set_metainfo(dict(is_scene_start=True))
    found = streamed(toy, frames)
    assert [len(one) for one in found] == [0 if t in missing else 8 for t in range(3)]
    toy.session.clear()
    losses = toy.train()(**collate(toy, [frames], training=True), mode='loss')
    toy.parse_losses(losses)[0].backward()
    assert [name for name, p in toy.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.grad is None or p.grad.isfinite().all() for p in toy.parameters())


def test_cameras_alone_learn_and_stream_from_the_data_set(toy, repo, nano_infos_root):
    """As the Runner does it: loaders of the config, augmented clips in training, scenes in time order in testing."""
    cfg = Config.fromfile(repo / 'configs/_base_/datasets/synthetic_sequence_cameras_only.py')
    loaders = [cfg.train_dataloader, cfg.val_dataloader]
    for loader in loaders:
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=f'{nano_infos_root}/', seq_len=2 if loader is loaders[0] else 1)
    learn, test = (Runner.build_dataloader(loader, seed=0) for loader in loaders)
    losses = toy.train()(**toy.data_preprocessor(next(iter(learn)), True), mode='loss')
    toy.parse_losses(losses)[0].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in toy.parameters())
    found = []
    for batch in itertools.islice(test, 3):
        found += toy.eval().test_step(batch)
    assert [sample.frame_index for sample in found] == [0, 1, 2] and len({sample.scene_token for sample in found}) == 1
    assert [len(sample.pred_instances_3d) for sample in found] == [8, 8, 8]


def test_heads_are_given_single_precision_under_autocast(toy, clip):
    with torch.autocast('cpu', torch.bfloat16):
        found = streamed(toy, clip('a', 2))
        losses = toy.train()(**collate(toy, [clip('a', 2)], training=True), mode='loss')
    assert found[1].bboxes_3d.tensor.dtype == torch.float32 and toy.parse_losses(losses)[0].isfinite()


@pytest.mark.parametrize(('change', 'word'), [
    (dict(pts_bbox_head=None), 'no head'), (dict(img_backbone=None), 'neither LiDAR nor cameras'),
    (dict(temporal=dict(type='ResidualReadout', in_channels=1, decoded_channels=1, upscale=1)), 'no temporal module'),
    (dict(pts_voxel_encoder=dict(type='PillarFeatureNet')), 'pts_middle_encoder'),
    (dict(pts_neck=dict(type='SECONDFPN')), 'no LiDAR branch')])
def test_slots_that_do_not_go_together_are_named(change, word, toy):
    with pytest.raises((ValueError, TypeError), match=word):
        MODELS.build({**copy.deepcopy(TOY), **change})


def test_a_head_that_does_not_speak_the_protocol_is_named():
    with pytest.raises(TypeError, match='Conv2d is neither'):
        scene_head(nn.Conv2d(1, 1, 1))


def test_memory_of_bev_features_without_lidar_is_named(toy, clip):
    gru = dict(type='ConvGRUFusion', in_channels=8, hidden_dim=8)
    model = MODELS.build({**copy.deepcopy(TOY), 'temporal': gru}).eval()
    with pytest.raises(ValueError, match='BEV features are needed.*pts_voxel_encoder'):
        streamed(model, clip('a', 1))


def test_a_fused_model_without_lidar_finds_the_same(toy, clip):
    found = streamed(toy, clip('a', 2))
    toy.session.clear()
    for one, fused in zip(found, streamed(fuse_for_inference(toy), clip('a', 2))):
        torch.testing.assert_close(fused.bboxes_3d.tensor, one.bboxes_3d.tensor, atol=1e-4, rtol=0)
