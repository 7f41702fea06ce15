"""READ FIRST. Detector. In: clips of points. Out: boxes of every frame, in that frame's (augmented) LiDAR frame.

    encode(clip)          all frames at once: voxels -> pillars -> backbone -> neck          bev (B, T, C, H, W)
    step(bev_t, memory)   one frame: align, read, write                                      bev_temporal (B, C, H, W)
    pts_bbox_head         mmdet3d's head on bev_temporal

Without the slot `temporal` it is the plain single-frame detector.
"""

from __future__ import annotations

from typing import Any

import torch
from mmdet3d.models.detectors import MVXTwoStageDetector
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from torch import Tensor

from projects.memfusion.geometry import BEVGrid, rasterize_boxes
from projects.memfusion.structures import FrameBatch, FrameMeta, MemoryState

from .grid_config import fill_grid
from .session import Session, recall, remember

LOSS_FRAMES = ('all', 'last')


@MODELS.register_module()
class TemporalFusionDetector(MVXTwoStageDetector):
    """A BEV detector with memory. Slots have mmdet3d's names, so mmdet3d's checkpoints load unchanged.

    Args:
        grid: dict(point_cloud_range, voxel_size, out_size_factor), written once and filled into every sub-config.
        pts_voxel_encoder, pts_middle_encoder, pts_backbone, pts_neck, pts_bbox_head: as in mmdet3d's CenterPoint.
        temporal: the memory slot, e.g. dict(type='TemporalMemory', ...); None is the plain detector.
        train_cfg: dict(pts=..., loss_frames='all' | 'last').
        test_cfg: dict(pts=..., mode='streaming').
        data_preprocessor: dict(type='ClipDataPreprocessor', ...).

    `session` is {scene_token: MemoryState} between test frames; SessionResetHook clears it.
    """

    def __init__(
        self,
        grid: dict,
        pts_voxel_encoder: dict,
        pts_middle_encoder: dict,
        pts_backbone: dict,
        pts_bbox_head: dict,
        pts_neck: dict | None = None,
        temporal: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        self.grid = BEVGrid(**grid)
        fill_grid(
            self.grid, data_preprocessor=data_preprocessor, pts_voxel_encoder=pts_voxel_encoder,
            pts_middle_encoder=pts_middle_encoder, pts_bbox_head=pts_bbox_head, train_cfg=train_cfg, test_cfg=test_cfg)
        super().__init__(
            pts_voxel_encoder=pts_voxel_encoder, pts_middle_encoder=pts_middle_encoder, pts_backbone=pts_backbone,
            pts_neck=pts_neck, pts_bbox_head=pts_bbox_head, train_cfg=train_cfg, test_cfg=test_cfg,
            data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.temporal: Any = MODELS.build(temporal) if temporal is not None else None
        self.loss_frames = (train_cfg or {}).get('loss_frames', 'all')
        if self.loss_frames not in LOSS_FRAMES:
            raise ValueError(f'model.train_cfg.loss_frames must be one of {LOSS_FRAMES}, got {self.loss_frames!r}')
        mode = (test_cfg or {}).get('mode', 'streaming')
        if mode != 'streaming':
            raise ValueError(f"model.test_cfg.mode must be 'streaming', got {mode!r}")
        self.session: Session = {}

    # -- one clip: all frames at once -------------------------------------------------------------------------------
    def encode(self, inputs: dict[str, Any]) -> Tensor:
        """Voxels of the valid frames -> BEV features (B, T, C, H, W); zeros where a frame is padding."""
        clips, length = inputs['clip_shape']
        valid = torch.tensor(inputs['frame_valid'], device=self.data_preprocessor.device)
        num_valid = sum(inputs['frame_valid'])
        if num_valid == 0:  # a batch of dropped test frames
            return torch.zeros(clips, length, self._bev_channels(), *self.grid.bev_shape, device=valid.device)
        bev = self.encode_points(inputs['voxels'], num_valid)
        if num_valid < len(valid):
            padded = bev.new_zeros(len(valid), *bev.shape[1:])
            padded[valid] = bev
            bev = padded
        return bev.view(clips, length, *bev.shape[1:])

    def encode_points(self, voxels: dict[str, Tensor], num_frames: int) -> Tensor:
        """Voxels of `num_frames` frames -> (num_frames, C, H, W)."""
        # mmdet3d takes the batch size from the last voxel, which is wrong when the last cloud is empty.
        if len(voxels['coors']):
            features = self.pts_voxel_encoder(voxels['voxels'], voxels['num_points'], voxels['coors'], None, None)
        else:
            features = voxels['voxels'].new_zeros(0, self.pts_middle_encoder.in_channels)
        levels = self.pts_backbone(self.pts_middle_encoder(features, voxels['coors'], num_frames))
        if self.with_pts_neck:
            levels = self.pts_neck(levels)
        if len(levels) != 1 or levels[0].shape[-2:] != self.grid.bev_shape:
            raise ValueError(f'the neck gives {[tuple(level.shape[-2:]) for level in levels]} cells, but model.grid '
                             f'makes {self.grid.bev_shape}: one level of that size is needed (check strides and '
                             'out_size_factor)')
        return levels[0]

    def _bev_channels(self) -> int:
        head = self.pts_bbox_head
        return (head.shared_conv.conv if hasattr(head, 'shared_conv') else head.conv_cls).in_channels

    # -- one frame ----------------------------------------------------------------------------------------------------
    def step(self, bev: Tensor, memory: MemoryState, frames: FrameBatch) -> tuple[Tensor, Tensor, MemoryState]:
        """bev (B, C, H, W) -> bev_temporal (B, C, H, W), occ_logits (B, 1, Hm, Wm), the next memory."""
        memory = self.temporal.align(memory, frames)
        readout = self.temporal.read(bev, memory)
        mask = self.temporal.choose_mask(readout)
        memory = self.temporal.write(memory, readout, mask, frames)
        return readout.bev, readout.occ_logits, memory

    # -- training -----------------------------------------------------------------------------------------------------
    def loss(self, batch_inputs_dict: dict[str, Any], batch_data_samples: list[Det3DDataSample]) -> dict[str, Tensor]:
        """Detection loss on the last or on all frames, and the memory's occupancy loss on all frames."""
        bev = self.encode(batch_inputs_dict)
        clips, length = bev.shape[:2]
        keep = list(batch_inputs_dict['frame_valid'])
        losses: dict[str, Tensor] = {}
        if self.temporal is not None:
            bev, occ_logits, memory = self._remember_clip(bev, batch_data_samples)
            occupancy = torch.stack([self._occupancy(s) for s, valid in zip(batch_data_samples, keep) if valid])
            losses.update(self.temporal.loss(occ_logits.flatten(0, 1)[torch.tensor(keep)], occupancy[:, None]))
            # DDP wants every parameter in every step: the last frame's write is read by nobody.
            losses['loss_occ_bce'] = losses['loss_occ_bce'] + memory.zero()
        if self.loss_frames == 'last':
            keep = [valid and i % length == length - 1 for i, valid in enumerate(keep)]
        if not any(keep):
            # Every last frame of the batch was dropped. The features keep the graph whole for DDP; nothing is learned.
            outputs = self.pts_bbox_head([bev.flatten(0, 1)])
            return {**losses, 'loss_no_label': 0.0 * sum(v.sum() for task in outputs for v in task[0].values())}
        labelled = [sample for sample, kept in zip(batch_data_samples, keep) if kept]
        losses.update(self.pts_bbox_head.loss([bev.flatten(0, 1)[torch.tensor(keep)]], labelled))
        return losses

    def _remember_clip(self, bev: Tensor, samples: list[Det3DDataSample]) -> tuple[Tensor, Tensor, MemoryState]:
        """bev (B, T, C, H, W) -> bev_temporal (B, T, C, H, W), occ_logits (B, T, 1, Hm, Wm), the last memory."""
        clips, length = bev.shape[:2]
        memory = self.temporal.init_state(bev[:, 0])
        outputs, logits = [], []
        for t in range(length):
            frames = self._frames(samples[t::length], bev.device)
            output, occ_logits, memory = self.step(bev[:, t], memory, frames)
            outputs.append(output)
            logits.append(occ_logits)
        return torch.stack(outputs, dim=1), torch.stack(logits, dim=1), memory

    def _occupancy(self, sample: Det3DDataSample) -> Tensor:
        """Union of a frame's true boxes, (H, W) bool."""
        boxes = sample.gt_instances_3d.bboxes_3d.tensor.to(self.data_preprocessor.device)
        return rasterize_boxes(boxes[:, :7], self.grid)

    # -- testing ------------------------------------------------------------------------------------------------------
    def predict(
        self, batch_inputs_dict: dict[str, Any], batch_data_samples: list[Det3DDataSample]
    ) -> list[Det3DDataSample]:
        """Streaming: one frame of each of B scenes; memory is carried in `session`."""
        if batch_inputs_dict['clip_shape'][1] != 1:
            raise ValueError(f"test_cfg.mode='streaming' takes one frame at a time, got clips of "
                             f"{batch_inputs_dict['clip_shape'][1]}: set seq_len=1 in the test data set")
        bev = self.encode(batch_inputs_dict)[:, 0]
        if self.temporal is not None:
            frames = self._frames(batch_data_samples, bev.device)
            memory = recall(self.session, frames, self.temporal.init_state(bev))
            bev, occ_logits, memory = self.step(bev, memory, frames)
            remember(self.session, frames, memory)
            for sample, logits in zip(batch_data_samples, occ_logits):
                sample.set_field(logits.sigmoid(), 'pred_occupancy')
        results = self.pts_bbox_head.predict([bev], batch_data_samples)
        empty = [not valid for valid in batch_inputs_dict['frame_valid']]
        results = [result[:0] if dropped else result for result, dropped in zip(results, empty)]
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _frames(self, samples: list[Det3DDataSample], device: torch.device) -> FrameBatch:
        return FrameBatch.from_metas([FrameMeta.from_metainfo(sample.metainfo) for sample in samples], device)
