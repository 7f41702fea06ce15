"""READ FIRST. Detector. In: clips of points and images. Out: boxes of every frame, in that frame's (augmented) LiDAR frame.

    encode(clip)          all frames at once, in clip_encoder.py: points, images, fusion     bev (B, T, C, H, W)
    step(bev_t, memory)   one frame: align, read, choose_mask, write                         bev_temporal (B, C, H, W)
    pts_bbox_head         mmdet3d's head on bev_temporal
    task_heads            further heads, on bev_temporal or on the image features

Without the slot `temporal` it is the plain single-frame detector, without `img_backbone` LiDAR only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.model import ModuleDict
from mmengine.structures import InstanceData
from torch import Tensor

from projects.geometry import BEVGrid, rasterize_boxes
from projects.memfusion.fusion import FusionTruth
from projects.memfusion.losses.ranks import zero_from, zero_of
from projects.memfusion.structures import Calibration, FrameBatch, FrameMeta

from .clip_encoder import ClipEncoder, EncodedClip, EncodedImages
from .grid_config import fill_grid
from .modes import evaluating, freeze, keep_frozen_in_eval
from .session import FrameHistory, Session, TestMode, check_clip, check_order, recall, remember, window_of
from .targets import center_heatmaps

LOSS_FRAMES = ('all', 'last')


@dataclass(frozen=True)
class StepOutput:
    """bev (B, C, H, W), occ_logits (B, 1, Hm, Wm) or None, the next memory, and the head's boxes where they were wanted."""

    bev: Tensor
    occ_logits: Tensor | None
    memory: Any
    found: list[InstanceData] | None


@MODELS.register_module()
class TemporalFusionDetector(ClipEncoder):
    """A BEV detector with cameras and memory. Slots have mmdet3d's names, so mmdet3d's checkpoints load unchanged.

    Args:
        grid: dict(point_cloud_range, voxel_size, out_size_factor), written once and filled into every sub-config.
        pts_voxel_encoder, pts_middle_encoder, pts_backbone, pts_neck, pts_bbox_head: as in mmdet3d's CenterPoint or, with
            Anchor3DHead, its PointPillars; the neck gives one level.
        img_backbone, img_neck: any of mmdet's; None is LiDAR only.
        fusion_layer: the camera slot, e.g. dict(type='FuTrPlusPlus', ...); needs img_backbone. The fused BEV goes into memory.
        task_heads: further heads by name, e.g. dict(img_seg=dict(type='ImageSegHead', ...)); each says what it `needs`.
        temporal: the memory slot, e.g. dict(type='TemporalMemory', ...); None is the plain detector.
        train_cfg: dict(pts=..., loss_frames='all' | 'last', grad_frames=n, frozen=[prefixes]). Gradients flow through the
            last `grad_frames` frames of a clip (None is all). The frames before them are context: encoded in eval mode
            without gradient, and what they leave in memory is detached; their own losses train what comes after the
            encoder. Modules whose names start with one of `frozen` are not trained and stay in eval mode.
        test_cfg: dict(pts=..., mode='streaming' | 'window', seq_len=8, stride=1), see TestMode.
        data_preprocessor: dict(type='ClipDataPreprocessor', ...).

    `session` is what test frames leave for the next ones, by scene token; SessionResetHook clears it.
    """

    typed_parts = dict(grid=BEVGrid)
    """What is built of the settings that are parts of the config without a type."""

    def __init__(
        self,
        grid: dict,
        pts_voxel_encoder: dict,
        pts_middle_encoder: dict,
        pts_backbone: dict,
        pts_bbox_head: dict,
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
        fill_grid(
            BEVGrid(**grid), data_preprocessor=data_preprocessor, pts_voxel_encoder=pts_voxel_encoder,
            pts_middle_encoder=pts_middle_encoder, pts_bbox_head=pts_bbox_head, fusion_layer=fusion_layer,
            task_heads=task_heads, temporal=temporal, train_cfg=train_cfg, test_cfg=test_cfg)
        super().__init__(
            grid, fusion_layer, pts_voxel_encoder=pts_voxel_encoder, pts_middle_encoder=pts_middle_encoder,
            pts_backbone=pts_backbone, pts_neck=pts_neck, pts_bbox_head=pts_bbox_head, img_backbone=img_backbone,
            img_neck=img_neck, train_cfg=train_cfg, test_cfg=test_cfg, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.task_heads = ModuleDict({name: MODELS.build(head) for name, head in (task_heads or {}).items()})
        seeing = [name for name, head in self.task_heads.items() if head.needs == 'img']
        if seeing and not self.with_img_backbone:
            raise ValueError(f'model.task_heads {seeing} need images, but there is no model.img_backbone')
        self.temporal: Any = MODELS.build(temporal) if temporal is not None else None
        train_cfg, test_cfg = train_cfg or {}, test_cfg or {}
        self.loss_frames = train_cfg.get('loss_frames', 'all')
        if self.loss_frames not in LOSS_FRAMES:
            raise ValueError(f'model.train_cfg.loss_frames must be one of {LOSS_FRAMES}, got {self.loss_frames!r}')
        self.grad_frames: int | None = train_cfg.get('grad_frames')
        if self.grad_frames is not None and self.grad_frames < 1:
            raise ValueError(f'model.train_cfg.grad_frames must be at least 1, or None for all, got {self.grad_frames}')
        self.test_mode = TestMode(**{k: test_cfg[k] for k in ('mode', 'seq_len', 'stride') if k in test_cfg})
        if self._loader_aligned and self.test_mode.mode == 'streaming':
            raise ValueError("model.temporal.align='loader' moves the frames of a clip into the last one's coordinates, "
                             "which streaming does not have: set model.test_cfg.mode=window, or temporal.align=network")
        self.frozen = tuple(train_cfg.get('frozen', ()))
        freeze(self, self.frozen)
        self.session: Session = {}

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

    # -- one frame ----------------------------------------------------------------------------------------------------
    def step(self, bev: Tensor, memory: Any, frames: FrameBatch, observed: Tensor | None = None,
             samples: Sequence[Det3DDataSample] | None = None) -> StepOutput:
        """One frame of B scenes.

        Args:
            bev: (B, C, H, W); memory: the state before the frame.
            observed: (B, 1, H, W) bool, cells that hold a point.
            samples: B frames; their truth is read in training, and only where the memory's masks ask for it.
        """
        aligned = self.temporal.align(memory, frames)
        readout = self.temporal.read(bev, aligned, frames)
        found = self._find(readout.bev, frames) if self.temporal.needs_boxes else None
        boxes = None if found is None else self._confident(found)
        mask = self.temporal.choose_mask(readout, aligned, frames, boxes, self._truth(samples))
        after = self.temporal.write(aligned, readout, mask, frames, observed)
        return StepOutput(readout.bev, readout.occ_logits, after.where(frames.valid, memory), found)

    @torch.no_grad()
    def _find(self, bev: Tensor, frames: FrameBatch) -> list[InstanceData]:
        """The head's boxes in B frames, as in testing."""
        with evaluating(self.pts_bbox_head), torch.autocast(bev.device.type, enabled=False):  # boxes are never half precise
            samples = [Det3DDataSample(metainfo=dict(box_type_3d=LiDARInstance3DBoxes)) for _ in frames.metas]
            return self.pts_bbox_head.predict([bev.detach().float()], samples)

    def _confident(self, found: list[InstanceData]) -> list[Tensor]:
        """The boxes that score enough, B x (n, 9), the surest first."""
        threshold, device = self.temporal.masks.score_threshold, self.data_preprocessor.device
        found = [one[one.scores_3d.argsort(descending=True, stable=True)] for one in found]  # the head's order is by task
        return [one.bboxes_3d.tensor[one.scores_3d >= threshold].to(device) for one in found]

    def _truth(self, samples: Sequence[Det3DDataSample] | None) -> list[Tensor] | None:
        if samples is None or not self.training:
            return None
        return [sample.gt_instances_3d.bboxes_3d.tensor.to(self.data_preprocessor.device) for sample in samples]

    # -- training -----------------------------------------------------------------------------------------------------
    def loss(self, batch_inputs_dict: dict[str, Any], batch_data_samples: list[Det3DDataSample]) -> dict[str, Tensor]:
        """Detection loss on the last or on all frames, and the memory's own loss on all frames."""
        length = batch_inputs_dict['clip_shape'][1]
        context = self.context_frames(length)
        if context == 0:
            return self.loss_on_clip(self.encode(batch_inputs_dict), batch_data_samples)
        is_context = [i % length < context for i in range(len(batch_data_samples))]
        with torch.no_grad(), evaluating(self):
            before = self.encode(batch_inputs_dict, is_context)
        learned = self.encode(batch_inputs_dict, [not flag for flag in is_context])
        clip = learned.after(before, context)
        return self.loss_on_clip(clip, batch_data_samples, context)

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
        length = clip.bev.shape[1]
        labelled = [bool(valid) and sample.metainfo.get('is_keyframe', True)  # padding and sweeps have no labels
                    for sample, valid in zip(samples, clip.valid.flatten().tolist())]
        bev, losses = clip.bev, {}
        if self.temporal is not None:
            bev, occ_logits, _ = self.remember_clip(clip, samples, context)
            # DDP wants every parameter in every step: the last frame's write is read by nobody.
            losses['loss_unread_memory'] = bev.new_zeros(()) + zero_of(self.temporal)
            if occ_logits is not None:
                occupancy = [self._occupancy(s) for s, kept in zip(samples, labelled) if kept]
                target = torch.stack(occupancy)[:, None] if occupancy else bev.new_zeros(0, 1, *self.grid.bev_shape)
                losses.update(self.temporal.loss(occ_logits.flatten(0, 1)[torch.tensor(labelled)], target))
        keep = labelled
        if self.loss_frames == 'last':
            keep = [label and i % length == length - 1 for i, label in enumerate(labelled)]
        if clip.images is not None:
            losses.update(self._image_losses(clip.images, samples, labelled))
        chosen = [sample for sample, kept in zip(samples, keep) if kept]
        features = bev.flatten(0, 1)[torch.tensor(keep)]
        losses.update(self._task_losses('bev', features, chosen, None))
        if chosen:
            return {**losses, **self._box_losses(features, chosen)}
        # Every last frame of the batch was dropped. The head runs all the same, on a frame without truth, and counts nothing:
        # other processes wait for this one's gradients and for its share of the normalisers.
        unlabelled = Det3DDataSample(metainfo={**samples[0].metainfo, 'is_labelled': False},
                                     gt_instances_3d=samples[0].gt_instances_3d[:0])
        idle = self._box_losses(bev.flatten(0, 1)[:1], [unlabelled])
        return {**losses, **{name: torch.zeros_like(value) + zero_from([value]) for name, value in idle.items()}}

    def _box_losses(self, features: Tensor, samples: Sequence[Det3DDataSample]) -> dict[str, Tensor]:
        """The head's losses on features (V, C, H, W), scalars; the samples stay as they are."""
        # mmdet3d's anchor heads replace the truth's boxes by bare tensors in the samples that they are given.
        samples = [Det3DDataSample(metainfo=sample.metainfo, gt_instances_3d=sample.gt_instances_3d[:]) for sample in samples]
        losses = self.pts_bbox_head.loss([features], samples)
        return {name: torch.stack(value).sum() if isinstance(value, list) else value for name, value in losses.items()}

    def _image_losses(self, images: EncodedImages, samples: list[Det3DDataSample], labelled: list[bool]) -> dict[str, Tensor]:
        """The fusion layer's own loss, and those of the heads on images, of the labelled frames that have images here."""
        rows = torch.tensor([labelled[p] for p in images.position.tolist()], dtype=torch.bool)
        chosen = images.select(rows)
        frames = [samples[p] for p in chosen.position.tolist()]
        losses = self._task_losses('img', chosen.levels, frames, chosen.calibration)
        if self.fusion_layer is not None:
            boxes = [frame.gt_instances_3d.bboxes_3d.tensor for frame in frames]
            heatmap = center_heatmaps(boxes, self.grid, images.position.device)[:, None]
            truth = FusionTruth(heatmap, chosen.calibration.calib_noise)
            losses.update(self.fusion_layer.loss(chosen.aux, truth))
        return losses

    def _task_losses(self, needs: str, features: Any, samples: Sequence[Det3DDataSample],
                     calibration: Calibration | None) -> dict[str, Tensor]:
        """Losses of the heads on images or on BEV, as `name.loss`; V may be 0."""
        return {f'{name}.{key}': value for name, head in self.task_heads.items() if head.needs == needs
                for key, value in head.loss(features, samples, calibration).items()}

    def remember_clip(self, clip: EncodedClip, samples: list[Det3DDataSample],
                      context: int = 0) -> tuple[Tensor, Tensor | None, Any]:
        """Steps through clips: bev_temporal (B, T, C, H, W), occ_logits (B, T, 1, Hm, Wm) or None, the last memory.

        No gradient passes from a frame into the memory of the first `context` frames, nor into features without a loss.
        """
        length = clip.bev.shape[1]
        memory = self.temporal.init_state(clip.bev[:, 0])
        outputs, logits = [], []
        for t, frames in enumerate(self._steps_of(clip, samples)):
            learns = t >= context or any(meta.frame_valid and meta.is_keyframe for meta in frames.metas)
            with nullcontext() if learns else torch.no_grad():
                out = self.step(clip.bev[:, t], memory, frames, clip.observed[:, t], samples[t::length])
            memory = out.memory.detach() if t < context else out.memory
            has_loss = self.loss_frames == 'all' or t == length - 1
            outputs.append(out.bev if has_loss else out.bev.detach())
            logits += [] if out.occ_logits is None else [out.occ_logits]
        return torch.stack(outputs, dim=1), torch.stack(logits, dim=1) if logits else None, memory

    def _occupancy(self, sample: Det3DDataSample) -> Tensor:
        """Union of a frame's true boxes, (H, W) bool."""
        boxes = sample.gt_instances_3d.bboxes_3d.tensor.to(self.data_preprocessor.device)
        return rasterize_boxes(boxes[:, :7], self.grid)

    # -- testing ------------------------------------------------------------------------------------------------------
    def predict(
        self, batch_inputs_dict: dict[str, Any], batch_data_samples: list[Det3DDataSample]
    ) -> list[Det3DDataSample]:
        """The last frame of each of B clips; what came before is in the clip, in `session`, or both, by `test_cfg.mode`."""
        return self.predict_on_clip(self.encode(batch_inputs_dict), batch_data_samples)

    def predict_on_clip(self, clip: EncodedClip, samples: list[Det3DDataSample]) -> list[Det3DDataSample]:
        """Predicts the last frame of B encoded clips; `samples` are their B x T frames, clip-major."""
        length = clip.bev.shape[1]
        lasts = samples[length - 1::length]
        found, bev = None, clip.bev[:, -1]
        if self.temporal is not None:
            out = self._recollect(clip, samples)
            found, bev = out.found, out.bev
            if out.occ_logits is not None:
                for sample, logits in zip(lasts, out.occ_logits):
                    sample.set_field(logits.sigmoid(), 'pred_occupancy')
        results = found if found is not None else self.pts_bbox_head.predict([bev], lasts)
        results = [result if valid else result[:0] for result, valid in zip(results, clip.valid[:, -1].tolist())]
        for head in self.task_heads.values():
            if head.needs == 'bev':
                head.predict(bev, lasts, None)
            elif clip.images is not None:
                ends = clip.images.select(clip.images.position % length == length - 1)
                head.predict(ends.levels, [samples[p] for p in ends.position.tolist()], ends.calibration)
        return self.add_pred_to_datasample(lasts, results)

    def _recollect(self, clip: EncodedClip, samples: list[Det3DDataSample]) -> StepOutput:
        """The last frame's step, after whatever history the test mode gives it."""
        length = clip.bev.shape[1]
        steps = self._steps_of(clip, samples)
        memory = self.temporal.init_state(clip.bev[:, 0])
        if self._loader_aligned:
            if length != self.test_mode.seq_len:
                raise ValueError(f'model.test_cfg.seq_len={self.test_mode.seq_len}, but the test set\'s clips hold {length} '
                                 "frames: with align='loader' a window is a clip, so set the test dataset's seq_len alike")
            steps = [self._within_tile(step, steps[-1]) for step in steps]
            return self._walk(steps, clip.bev.unbind(1), clip.observed.unbind(1), memory)
        if self.test_mode.rolling:
            histories = [self._extend_history(clip, [step.metas[b] for step in steps], b) for b in range(len(steps[0].metas))]
            frames, bev, observed = window_of(histories, clip.bev.device)
            return self._walk(frames, bev, observed, memory)
        firsts = tuple(next((s.metas[b] for s in steps if s.metas[b].frame_valid), steps[-1].metas[b])
                       for b in range(len(steps[0].metas)))
        memory = recall(self.session, firsts, memory)
        out = self._walk(steps, clip.bev.unbind(1), clip.observed.unbind(1), memory, self.test_mode.tile)
        remember(self.session, steps[-1], out.memory)
        return out

    def _within_tile(self, step: FrameBatch, last: FrameBatch) -> FrameBatch:
        """The step with frames of an earlier tile than the last frame's made padding."""
        if self.test_mode.tile is None:
            return step
        same = [meta.frame_index // self.test_mode.tile == end.frame_index // self.test_mode.tile
                for meta, end in zip(step.metas, last.metas)]
        return step.with_valid(step.valid & torch.tensor(same, device=step.valid.device))

    def _walk(self, steps: Sequence[FrameBatch], bev: Iterable[Tensor], observed: Iterable[Tensor], memory: Any,
              tile: int | None = None) -> StepOutput:
        for frames, bev_t, observed_t in zip(steps, bev, observed):
            if tile is not None:
                memory = memory.reset(memory.num_frames >= tile)
            out = self.step(bev_t, memory, frames, observed_t)
            memory = out.memory
        return out

    def _extend_history(self, clip: EncodedClip, metas: list[FrameMeta], index: int) -> FrameHistory:
        """Scene `index`'s window with the clip's new frames; every frame was encoded once."""
        last = metas[-1]
        history: FrameHistory | None = self.session.get(last.scene_token)
        first = next((meta for meta in metas if meta.frame_valid), last)
        check_order(first, history is not None, history.metas[-1].timestamp_s if history and history.metas else None)
        if history is None or first.is_scene_start:
            history = self.session[last.scene_token] = FrameHistory()
        for t, meta in enumerate(metas):
            if meta.frame_valid or (meta is last and not history.metas):  # a dropped first frame still owes an answer
                history.push(meta, clip.bev[index, t], clip.observed[index, t], self.test_mode.seq_len)
        if last.is_scene_end:
            del self.session[last.scene_token]
        return history

    def _steps_of(self, clip: EncodedClip, samples: Sequence[Det3DDataSample]) -> list[FrameBatch]:
        """The T time steps of B clips, each checked for scene and time order."""
        length = clip.bev.shape[1]
        steps = [self.frames_of(samples[t::length], clip.bev.device, clip.valid[:, t]) for t in range(length)]
        for metas in zip(*[step.metas for step in steps]):
            check_clip(metas)
        return steps

    def frames_of(self, samples: Sequence[Det3DDataSample], device: torch.device, valid: Tensor) -> FrameBatch:
        """One frame of each of B clips, as the temporal module takes it; `valid` (B,) bool says which are no padding."""
        metas = [FrameMeta.from_metainfo(sample.metainfo) for sample in samples]
        frames = FrameBatch.from_metas(metas, device)
        self._check_alignment(samples)
        return frames.with_valid(valid)

    def _check_alignment(self, samples: Sequence[Det3DDataSample]) -> None:
        aligned = {bool(sample.metainfo.get('clip_aligned', False)) for sample in samples}
        if aligned != {self._loader_aligned}:
            raise ValueError(
                f"model.temporal.align={self.temporal.alignment!r}, but the data set's frames are "
                f"{'' if True in aligned else 'not '}moved into the clip's last frame: set align='loader' in both "
                "model.temporal and the dataset, or in neither")
