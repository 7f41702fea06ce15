"""Spatial: processing. In: a question, its answer, a clip's frames and what is known of them. Out: an example for the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from projects.spatial_mllm.geometry_sources.source import GeometrySource, build_source
from projects.spatial_mllm.model.connectors import pack_tokens
from projects.spatial_mllm.model.poses import POSE_MERGES, FramePoses, merge_poses

from .batch import Example
from .chat import SYSTEM, Chat
from .patches import PatchSettings, patch_rows, resized
from .position_ids import PositionRule, VisionBlocks, position_ids
from .tokenizer import check_ids, load_config, load_tokenizer

_TIME = dict(qwen2_5_vl='float', qwen3_vl='frames')
_QWEN3_COLOURS = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


class Processor:
    """What the library's processor does, and poses and geometry.

    Args:
        checkpoint: local folder with config.json and tokenizer.
        patches: settings of PatchSettings beside patch, temporal and merge, which the checkpoint says.
        time: rule of position ids (see PositionRule); None is 'float' for Qwen2.5-VL, 'frames' for Qwen3-VL.
        seconds_per_grid: of a grid step; 0.5, as published, is a step of 1 at 2 tokens a second. None: as the video says.
        pose_merge: of POSE_MERGES, for the two frames of a token.
        geometry: config of a geometry source; None: none.
        system: the chat's system line; None leaves it out; 'published' is the model's own.
        camera_tokens: each grid step begins with a token for its camera, as the connector 'camera_prefix' wants it.
    """

    def __init__(self, checkpoint: str | Path, patches: Mapping[str, Any] | None = None, time: str | None = None,
                 seconds_per_grid: float | None = 0.5, pose_merge: str = 'first',
                 geometry: Mapping[str, Any] | GeometrySource | None = None, system: str | None = 'published',
                 camera_tokens: bool = False) -> None:
        self.tokenizer = load_tokenizer(checkpoint)
        config = load_config(checkpoint, _TIME)
        check_ids(self.tokenizer, config, str(checkpoint))
        if pose_merge not in POSE_MERGES:
            raise ValueError(f'pose_merge={pose_merge!r}: must be one of {", ".join(POSE_MERGES)}')
        vision = config.vision_config
        colours = _QWEN3_COLOURS if config.model_type == 'qwen3_vl' else {}
        self.patches = PatchSettings(**{**dict(patch=vision.patch_size, temporal=vision.temporal_patch_size,
                                               merge=vision.spatial_merge_size), **colours, **(patches or {})})
        rule = time or _TIME[config.model_type]
        self.rule = PositionRule(config.image_token_id, config.video_token_id, self.patches.merge,
                                 getattr(vision, 'tokens_per_second', 2.0), rule, camera_tokens)
        if system == 'published':
            system = SYSTEM if config.model_type == 'qwen2_5_vl' else None
        temporal = 1 if pose_merge == 'duplicate' else self.patches.temporal
        self.chat = Chat(self.tokenizer, self.patches.merge, rule == 'frames', system, (temporal - 1) / (2 * temporal),
                         camera_tokens)
        self.seconds_per_grid, self.pose_merge = seconds_per_grid, pose_merge
        self.source = build_source(geometry) if isinstance(geometry, Mapping) or geometry is None else geometry

    def __call__(self, question: str, answer: str | None, frames: Tensor | None, known: Any = None,
                 seconds_per_frame: float | None = None) -> Example:
        """An example.

        Args:
            question: text.
            answer: None: the model is to give it.
            frames: (F, H, W, 3) uint8 RGB; None: a question without a video.
            known: of these frames (readers.geometry_file.VideoGeometry), or None.
            seconds_per_frame: for `seconds_per_grid=None`.

        Raises:
            ValueError: the geometry source lacks what it needs, or nobody knows how long a grid step is.
        """
        if frames is None:
            tokens, labels = self.chat.encode(question, None, 0.0, answer)
            places, _ = position_ids(tokens[None], self.rule, VisionBlocks())
            return Example(tokens, labels, places[:, 0], torch.full_like(tokens, -1))
        repeat = self.patches.temporal if self.pose_merge == 'duplicate' else 1
        frames = resized(frames, self.patches)
        pixels, grid = patch_rows(frames.repeat_interleave(repeat, dim=0), self.patches)
        seconds = self._seconds(seconds_per_frame)
        tokens, labels = self.chat.encode(question, grid.tolist(), seconds, answer)
        places, _ = position_ids(tokens[None], self.rule, VisionBlocks(videos=[grid.tolist()], seconds=[seconds]))
        each = int(grid[1] * grid[2]) // self.patches.merge ** 2 + self.rule.camera_tokens
        step = torch.full_like(tokens, -1)
        step[tokens == self.rule.video_id] = torch.arange(int(grid[0])).repeat_interleave(each)
        return Example(tokens, labels, places[:, 0], step, pixels, grid[None], **self._geometry(frames, known, grid, repeat))

    def _geometry(self, frames: Tensor, known: Any, grid: Tensor, repeat: int) -> dict[str, Any]:
        """Poses of grid steps, packed tokens and cameras, as far as the source knows them."""
        if self.source is None:
            return {}
        found = self.source(frames, known, (int(grid[1]), int(grid[2])))
        rows = torch.arange(len(frames)).repeat_interleave(repeat)
        rows = torch.cat([rows, rows[-1:].expand(-len(rows) % self.patches.temporal)])
        parts: dict[str, Any] = {}
        if found.poses is not None:
            poses = found.poses.relative()
            intrinsics = None if poses.img_from_cam is None else poses.img_from_cam[rows]
            each = FramePoses(poses.cam_from_world[rows], intrinsics)
            parts['poses'] = merge_poses(each, self.pose_merge, self.patches.temporal)
        if found.tokens is not None:
            parts['geometry'] = pack_tokens([found.tokens[rows]], [grid.tolist()], self.patches.temporal, self.patches.merge)
        if found.camera is not None:
            parts['camera'] = found.camera[rows].unflatten(0, (-1, self.patches.temporal)).flatten(1)
        return parts

    def _seconds(self, seconds_per_frame: float | None) -> float:
        if self.seconds_per_grid is not None:
            return self.seconds_per_grid
        if seconds_per_frame is None:
            raise ValueError('seconds_per_grid=None: nobody knows the time between the frames of this video; give a number')
        return seconds_per_frame * (1 if self.pose_merge == 'duplicate' else self.patches.temporal)
