"""READ FIRST. Detector. In: clips of points, images or both. Out: boxes of every frame, in its (augmented) LiDAR frame.

    encode(clip)                        all frames at once, in clip_encoder.py      bev (B, T, C, H, W), image levels
    step(features_t, state, frames)     one frame:
        align(state, frames)                             -> state in the current frame
        read(state, features, frames)                    -> readout: what the past adds
        head(features, readout, truth)                   -> outputs
        write(state, readout, outputs, frames, truth)    -> state

Where `write` does not need the head's outputs, the head runs once, on all labelled frames. Where it does, it runs once a frame
in testing; in training without gradient in eval mode, frame by frame, and then once on all labelled frames: anything else would
change BatchNorm. Without the slot `temporal` it is the plain single-frame detector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import ConfigDict
from mmengine.model import ModuleDict
from mmengine.structures import InstanceData
from torch import Tensor

from projects.geometry import BEVGrid
from projects.memfusion.fusion import FusionTruth
from projects.memfusion.heads import SceneHead, scene_head
from projects.memfusion.losses.ranks import zero_from, zero_of
from projects.memfusion.structures import (
    Calibration,
    FrameBatch,
    FrameMeta,
    HeadOutputs,
    Readout,
    SceneFeatures,
    SceneTruth,
    TemporalState,
    take_rows,
)

from .clip_encoder import ClipEncoder
from .encoded_clip import EncodedClip, EncodedImages
from .grid_config import fill_grid
from .modes import evaluating, freeze, keep_frozen_in_eval
from .recollection import Recollection
from .seen_scores import SeenScores
from .session import Session, TestMode, check_clip
from .slot_checks import check_readers, check_steps, check_task_heads
from .targets import center_heatmaps

LOSS_FRAMES = ('all', 'last')


@dataclass(frozen=True)
class StepOutput:
    """What the past adds to the frame, the next state, and the head's outputs where `write` wanted them."""

    readout: Readout
    state: TemporalState
    outputs: HeadOutputs | None


@MODELS.register_module()
class TemporalFusionDetector(ClipEncoder):
    """A BEV detector with cameras and memory. Slots have mmdet3d's names, so mmdet3d's checkpoints load unchanged.

    Args:
        grid: dict(point_cloud_range, voxel_size, out_size_factor), written once and filled into every sub-config.
        pts_voxel_encoder, pts_middle_encoder, pts_backbone, pts_neck: as in mmdet3d's CenterPoint or PointPillars; the neck
            gives one level. All None is cameras only.
        pts_bbox_head: CenterHead, a head with anchors, or any that is a SceneHead (heads/scene_heads.py); None with task_heads.
        img_backbone, img_neck: any of mmdet's; None is LiDAR only.
        fusion_layer: the camera slot, e.g. dict(type='FuTrPlusPlus', ...); needs img_backbone. The fused BEV goes into memory.
        task_heads: further heads by name, e.g. dict(img_seg=dict(type='ImageSegHead', ...)); each says what it `needs`.
        temporal: the memory slot, e.g. dict(type='TemporalMemory', ...); None is the plain detector.
        train_cfg: dict(pts=..., loss_frames='all' | 'last', grad_frames=n, frozen=[prefixes]). Gradients flow through the
            last `grad_frames` frames of a clip (None is all). The frames before them are context: encoded in eval mode
            without gradient, and what they leave in memory is detached; their own losses train what comes after the
            encoder. Modules whose names start with one of `frozen` are not trained and stay in eval mode.
        test_cfg: dict(pts=..., mode='streaming' | 'window', seq_len=8, stride=1), see TestMode, and dict(hidden_boxes='keep' |
            'drop' | 'downweight', seen_from=None | 'head' | 'points'), see SeenScores.
        data_preprocessor: dict(type='ClipDataPreprocessor', ...).

    `session` is what test frames leave for the next ones, by scene token; SessionResetHook clears it.
    """

    typed_parts = dict(grid=BEVGrid)
    """What is built of the settings that are parts of the config without a type."""

    def __init__(
        self,
        grid: dict,
        pts_voxel_encoder: dict | None = None,
        pts_middle_encoder: dict | None = None,
        pts_backbone: dict | None = None,
        pts_bbox_head: dict | None = None,
        pts_neck: dict | None = None,
        img_backbone: dict | None = None,
        img_neck: dict | None = None,
        fusion_layer: dict | None = None,
        task_heads: dict[str, dict] | None = None,
        temporal: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        # mmdet3d reads `pts` of both, which heads of one's own may do without.
        train_cfg, test_cfg = (None if cfg is None else ConfigDict({'pts': None, **cfg}) for cfg in (train_cfg, test_cfg))
        fill_grid(
            BEVGrid(**grid), data_preprocessor=data_preprocessor, pts_voxel_encoder=pts_voxel_encoder,
            pts_middle_encoder=pts_middle_encoder, pts_bbox_head=pts_bbox_head, fusion_layer=fusion_layer,
            task_heads=task_heads, temporal=temporal, train_cfg=train_cfg, test_cfg=test_cfg)
        super().__init__(
            grid, fusion_layer, pts_voxel_encoder=pts_voxel_encoder, pts_middle_encoder=pts_middle_encoder,
            pts_backbone=pts_backbone, pts_neck=pts_neck, pts_bbox_head=pts_bbox_head, img_backbone=img_backbone,
            img_neck=img_neck, train_cfg=train_cfg, test_cfg=test_cfg, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if pts_bbox_head is None and not task_heads:
            raise ValueError('the model has no head: set model.pts_bbox_head or model.task_heads')
        self.task_heads = ModuleDict({name: MODELS.build(head) for name, head in (task_heads or {}).items()})
        check_task_heads(self.task_heads, self.with_img_backbone)
        self.temporal: Any = None if temporal is None else MODELS.build(temporal)
        head = scene_head(self.pts_bbox_head) if self.with_pts_bbox else None
        check_steps(self.temporal, head, self.with_img_backbone)
        check_readers(self.temporal, head, self.task_heads.values())
        if head is not None:
            self.data_preprocessor.num_classes = head.matched_classes
        train_cfg, test_cfg = train_cfg or {}, test_cfg or {}
        self.loss_frames = train_cfg.get('loss_frames', 'all')
        if self.loss_frames not in LOSS_FRAMES:
            raise ValueError(f'model.train_cfg.loss_frames must be one of {LOSS_FRAMES}, got {self.loss_frames!r}')
        self.grad_frames: int | None = train_cfg.get('grad_frames')
        if self.grad_frames is not None and self.grad_frames < 1:
            raise ValueError(f'model.train_cfg.grad_frames must be at least 1, or None for all, got {self.grad_frames}')
        self.test_mode = TestMode(**{k: test_cfg[k] for k in ('mode', 'seq_len', 'stride') if k in test_cfg})
        self.seen_scores = SeenScores.of_config(test_cfg, bool(getattr(self.pts_bbox_head, 'seen_weight', 0))
                                                if self.with_pts_bbox else False)
        if self._loader_aligned and self.test_mode.mode == 'streaming':
            raise ValueError("model.temporal.align='loader' moves the frames of a clip into the last one's coordinates, "
                             "which streaming does not have: set model.test_cfg.mode=window, or temporal.align=network")
        self.frozen = tuple(train_cfg.get('frozen', ()))
        freeze(self, self.frozen)
        self.session = Session()

    @property
    def _loader_aligned(self) -> bool:
        return self.temporal is not None and self.temporal.alignment == 'loader'

    def train(self, mode: bool = True) -> TemporalFusionDetector:
        """As usual, except that frozen parts stay in eval mode."""
        super().train(mode)
        keep_frozen_in_eval(self, getattr(self, 'frozen', ()))
        return self

    def _readers(self) -> Iterator[Any]:
        yield from super()._readers()
        yield from (head for head in self.task_heads.values() if head.needs == 'img')
        yield from self._step_readers()

    def _step_readers(self) -> list[Any]:
        """The temporal module and the head, where they read image features."""
        head = scene_head(self.pts_bbox_head) if self.with_pts_bbox else None
        return [part for part in (self.temporal, head) if part is not None and part.needs_levels]

    @property
    def _wants_levels(self) -> bool:
        """Whether a step wants the image features, beside those of the BEV."""
        return bool(self._step_readers())

    # -- one frame ----------------------------------------------------------------------------------------------------
    def step(self, features: SceneFeatures, state: TemporalState, frames: FrameBatch,
             truth: SceneTruth | None = None, unread: bool = False) -> StepOutput:
        """One frame of B scenes.

        Args:
            features: what the frame shows.
            state: before the frame.
            frames: which frames they are.
            truth: what the frame holds; in eval mode nobody is told.
            unread: nobody asks what the past adds to this frame: it is left out where the memory can do without.
        """
        truth = truth if self.training else None
        aligned = self.temporal.align(state, frames)
        recorded = self.temporal.record(features) if unread else None
        readout = self.temporal.read(aligned, features, frames) if recorded is None else recorded
        outputs = self._glance(features, readout) if self.temporal.needs_outputs else None
        after = self.temporal.write(aligned, readout, outputs, frames, truth)
        return StepOutput(readout, after.where(frames.there, state), outputs)

    def head(self, features: SceneFeatures, readout: Readout, truth: SceneTruth | None,
             metas: Sequence[dict[str, Any]] | None = None) -> HeadOutputs:
        """What the 3-D head says about frames, B of a time step or any of a clip's; the metas say the type of the boxes."""
        head: SceneHead = scene_head(self.pts_bbox_head)
        raw = head.forward(features, readout, truth)
        metas = [dict(box_type_3d=LiDARInstance3DBoxes)] * features.batch_size if metas is None else metas
        return HeadOutputs(raw, partial(head.predict_by_feat, raw, metas))

    @torch.no_grad()
    def _glance(self, features: SceneFeatures, readout: Readout, metas: Sequence[dict[str, Any]] | None = None) -> HeadOutputs:
        """The head's outputs as in testing, whatever the mode."""
        device = features.any_tensor.device.type
        with evaluating(self.pts_bbox_head), torch.autocast(device, enabled=False):  # boxes are never half precise
            outputs = self.head(features.float(), readout.float(), None, metas)
            outputs.found  # noqa: B018 - decoded here, under these modes
            return outputs

    # -- training -----------------------------------------------------------------------------------------------------
    def loss(self, batch_inputs_dict: dict[str, Any], batch_data_samples: list[Det3DDataSample]) -> dict[str, Tensor]:
        """Detection loss on the last or on all frames, and the memory's own loss on all frames."""
        length = batch_inputs_dict['clip_shape'][1]
        context = self.context_frames(length)
        read = self._frames_with_read_bev(len(batch_data_samples), length)
        if context == 0:
            return self.loss_on_clip(self.encode(batch_inputs_dict, with_points=read), batch_data_samples)
        is_context = [i % length < context for i in range(len(batch_data_samples))]
        with torch.no_grad(), evaluating(self):
            before = self.encode(batch_inputs_dict, is_context, read)
        learned = self.encode(batch_inputs_dict, [not flag for flag in is_context], read)
        clip = learned.after(before, context)
        return self.loss_on_clip(clip, batch_data_samples, context)

    def _frames_with_read_bev(self, count: int, length: int) -> list[bool] | None:
        """Of which frames of training clips anybody reads the LiDAR's BEV features; None is all.

        Where memory keeps images alone, and the last frame alone learns, the LiDAR of the frames before it is read by nobody.
        """
        if self.loss_frames == 'all' or self.temporal is None or self.temporal.reads_bev or self.fusion_layer is not None:
            return None
        return [i % length == length - 1 for i in range(count)]

    def context_frames(self, length: int) -> int:
        """How many of a clip's `length` frames come before those with gradients."""
        return 0 if self.grad_frames is None else max(length - self.grad_frames, 0)

    def loss_on_clip(self, clip: EncodedClip, samples: list[Det3DDataSample], context: int = 0) -> dict[str, Tensor]:
        """Losses of encoded clips.

        Args:
            clip: B clips of T frames.
            samples: their B x T frames, clip-major.
            context: leading frames that were encoded without gradient; memory passes none back through them.
        """
        length = clip.length
        valid = [ok for row in clip.valid for ok in row]
        labelled = [i for i, sample in enumerate(samples)  # padding and sweeps have no labels
                    if valid[i] and sample.metainfo.get('is_keyframe', True)]
        readout, losses = Readout(), {}
        if self.temporal is not None:
            readout, _ = self.remember_clip(clip, samples, context)
            # DDP wants every parameter in every step: the last frame's write is read by nobody.
            losses['loss_unread_memory'] = torch.zeros((), device=self.data_preprocessor.device) + zero_of(self.temporal)
            truth = self._truth([samples[i] for i in labelled])
            losses.update(self.temporal.loss(readout.take(labelled), clip.frames(labelled, self._wants_levels), truth))
        chosen = labelled if self.loss_frames == 'all' else [i for i in labelled if i % length == length - 1]
        if clip.images is not None:
            losses.update(self._image_losses(clip.images, samples, labelled))
        bev = readout.bev if readout.bev is not None or clip.bev is None else clip.bev.flatten(0, 1)
        if bev is not None:
            losses.update(self._task_losses('bev', take_rows(bev, chosen), [samples[i] for i in chosen], None))
        if not self.with_pts_bbox:
            return losses
        if chosen:
            return {**losses, **self._box_losses(clip, readout, chosen, [samples[i] for i in chosen])}
        # Every last frame of the batch was dropped. The head runs all the same, on a frame without truth, and counts nothing:
        # other processes wait for this one's gradients and for its share of the normalisers.
        unlabelled = Det3DDataSample(metainfo={**samples[0].metainfo, 'is_labelled': False},
                                     gt_instances_3d=samples[0].gt_instances_3d[:0])
        idle = self._box_losses(clip, readout, [0], [unlabelled])
        return {**losses, **{name: torch.zeros_like(value) + zero_from([value]) for name, value in idle.items()}}

    def _box_losses(self, clip: EncodedClip, readout: Readout, rows: Sequence[int],
                    samples: Sequence[Det3DDataSample]) -> dict[str, Tensor]:
        """The head's losses on the frames at `rows` of the B x T, scalars."""
        truth = self._truth(samples) if self.training else None
        outputs = self.head(clip.frames(rows, self._wants_levels), readout.take(rows), truth)
        losses = scene_head(self.pts_bbox_head).loss_by_feat(outputs.raw, samples)
        return {name: torch.stack(value).sum() if isinstance(value, list) else value for name, value in losses.items()}

    def _truth(self, samples: Sequence[Det3DDataSample]) -> SceneTruth:
        return SceneTruth.of_samples(samples, self.data_preprocessor.device)

    def _image_losses(self, images: EncodedImages, samples: list[Det3DDataSample], labelled: list[int]) -> dict[str, Tensor]:
        """The fusion layer's own loss, and those of the heads on images, of the labelled frames that have images here."""
        chosen = images.take(labelled)
        frames = [samples[row] for row in chosen.rows]
        losses = self._task_losses('img', chosen.levels, frames, chosen.calibration)
        if self.fusion_layer is not None:
            boxes = [frame.gt_instances_3d.bboxes_3d.tensor for frame in frames]
            heatmap = center_heatmaps(boxes, self.grid, self.data_preprocessor.device)[:, None]
            truth = FusionTruth(heatmap, chosen.calibration.calib_noise)
            losses.update(self.fusion_layer.loss(chosen.aux, truth))
        return losses

    def _task_losses(self, needs: str, features: Any, samples: Sequence[Det3DDataSample],
                     calibration: Calibration | None) -> dict[str, Tensor]:
        """Losses of the heads on images or on BEV, as `name.loss`; V may be 0."""
        return {f'{name}.{key}': value for name, head in self.task_heads.items() if head.needs == needs
                for key, value in head.loss(features, samples, calibration).items()}

    def remember_clip(self, clip: EncodedClip, samples: list[Det3DDataSample],
                      context: int = 0) -> tuple[Readout, TemporalState]:
        """Steps through clips: what the past adds to their B x T frames, clip-major, and the last state.

        No gradient passes from a frame into the memory of the first `context` frames, nor into features without a loss.
        """
        length, readouts = clip.length, []
        state = self.temporal.init_state(clip.at(0, self._wants_levels))
        for t, frames in enumerate(self.steps_of(clip, samples)):
            learns = t >= context or any(there and meta.is_keyframe for there, meta in zip(frames.there, frames.metas))
            has_loss = self.loss_frames == 'all' or t == length - 1
            with nullcontext() if learns else torch.no_grad():
                out = self.step(clip.at(t, self._wants_levels), state, frames,
                                self._truth(samples[t::length]) if self.training else None, unread=not has_loss)
            state = out.state.detach() if t < context else out.state
            readouts.append(out.readout if has_loss else out.readout.without_gradient())
        return Readout.of_clips(readouts), state

    # -- testing ------------------------------------------------------------------------------------------------------
    def predict(
        self, batch_inputs_dict: dict[str, Any], batch_data_samples: list[Det3DDataSample]
    ) -> list[Det3DDataSample]:
        """The last frame of each of B clips; what came before is in the clip, in `session`, or both, by `test_cfg.mode`."""
        return self.predict_on_clip(self.encode(batch_inputs_dict), batch_data_samples, _last_points(batch_inputs_dict))

    def predict_on_clip(self, clip: EncodedClip, samples: list[Det3DDataSample],
                        points: Sequence[Tensor] | None = None) -> list[Det3DDataSample]:
        """Predicts the last frame of B encoded clips.

        Args:
            samples: their B x T frames, clip-major.
            points: B x (P, D) of the last frames, for `test_cfg.seen_from='points'`.
        """
        length = clip.length
        lasts = samples[length - 1::length]
        features, readout, outputs = clip.at(length - 1, self._wants_levels), Readout(), None
        if self.temporal is not None:
            recollection = Recollection(self, self.test_mode, self.session)
            out = recollection.last_step(clip, self.steps_of(clip, samples), self._wants_levels)
            readout, outputs = out.readout, out.outputs
            for name, values in self.temporal.predictions(readout).items():
                for sample, value in zip(lasts, values):
                    sample.set_field(value, name)
        results = self._found(features, readout, outputs, lasts)
        results = [result if row[-1] else result[:0] for result, row in zip(results, clip.valid)]
        self.add_pred_to_datasample(lasts, self.seen_scores.apply(results, points))
        for head in self.task_heads.values():  # after the boxes, which a head may go on from
            if head.needs == 'bev':
                head.predict(features.needed_bev if readout.bev is None else readout.bev, lasts, None)
            elif clip.images is not None:
                ends = clip.images.take([b * length + length - 1 for b in range(len(lasts))])
                head.predict(ends.levels, [samples[row] for row in ends.rows], ends.calibration)
        return lasts

    def _found(self, features: SceneFeatures, readout: Readout, outputs: HeadOutputs | None,
               samples: Sequence[Det3DDataSample]) -> list[InstanceData]:
        """The boxes of B frames; none without a 3-D head."""
        if not self.with_pts_bbox:
            empty = torch.zeros(0, device=self.data_preprocessor.device)
            return [InstanceData(bboxes_3d=LiDARInstance3DBoxes(empty.view(0, 9), box_dim=9), scores_3d=empty,
                                 labels_3d=empty.long()) for _ in samples]
        if outputs is None:
            outputs = self._glance(features, readout, [sample.metainfo for sample in samples])
        return outputs.found

    def steps_of(self, clip: EncodedClip, samples: Sequence[Det3DDataSample]) -> list[FrameBatch]:
        """The T time steps of B clips, each checked for scene and time order."""
        length = clip.length
        metas = [[FrameMeta.from_metainfo(sample.metainfo) for sample in samples[t::length]] for t in range(length)]
        self._check_alignment(samples)
        for scene in zip(*metas):
            check_clip(scene)
        there = [[row[t] for row in clip.valid] for t in range(length)]
        return FrameBatch.of_steps(metas, self.data_preprocessor.device, there)

    def _check_alignment(self, samples: Sequence[Det3DDataSample]) -> None:
        aligned = {bool(sample.metainfo.get('clip_aligned', False)) for sample in samples}
        if aligned != {self._loader_aligned}:
            raise ValueError(
                f"model.temporal.align={self.temporal.alignment!r}, but the data set's frames are "
                f"{'' if True in aligned else 'not '}moved into the clip's last frame: set align='loader' in both "
                "model.temporal and the dataset, or in neither")


def _last_points(inputs: dict[str, Any]) -> list[Tensor] | None:
    """The points of the last frames of B clips; none of one that is not there. None where frames have no points."""
    points, (batch, length) = inputs.get('points'), inputs['clip_shape']
    if points is None:
        return None
    place = {row: i for i, row in enumerate(row for row, valid in enumerate(inputs['frame_valid']) if valid)}
    ends = [place.get(b * length + length - 1) for b in range(batch)]
    return [points[0][:0] if at is None else points[at] for at in ends]
