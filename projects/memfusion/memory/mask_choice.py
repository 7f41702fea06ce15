"""Which mask XMem writes. In: agent logits, the head's boxes or the truth. Out: (B, K, Hm, Wm) masks, current BEV frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from projects.geometry import pad_rows
from projects.memfusion.structures import FrameBatch, HeadOutputs, MemoryState, SceneTruth

from .masks import MaskPolicy, draw_masks, drop_blocks


@dataclass(frozen=True)
class ChosenMask:
    """written (B, K, Hm, Wm) goes into memory with the frame, kept is the state's `mask`; then the tracked agents."""

    written: Tensor
    kept: Tensor
    agent_position: Tensor
    agent_time_s: Tensor


@dataclass(frozen=True)
class MaskChooser:
    """Chooses by a MaskPolicy.

    Attributes:
        policy: its settings; hooks may change them while training runs.
        map_range: what the memory's cells cover, (x_min, y_min, z_min, x_max, y_max, z_max) metres.
    """

    policy: MaskPolicy
    map_range: tuple[float, ...]

    def choose(self, logits: Tensor, state: MemoryState, frames: FrameBatch, outputs: HeadOutputs | None,
               truth: SceneTruth | None, training: bool) -> ChosenMask:
        """The mask that is written with this frame.

        Args:
            logits: (B, K, Hm, Wm) of the agents, as memory predicts them.
            state: aligned to the frame.
            outputs: of the head, where the policy `needs_boxes`.
            truth: where training knows it.

        Raises:
            ValueError: mask_source='truth' in testing, or at a frame without labels.
        """
        policy = self.policy
        position, time_s = state.agent_position, state.agent_time_s
        if policy.source == 'truth':
            _check_truth(frames, truth)
        if policy.source == 'none':
            written = kept = torch.zeros_like(logits)
        elif policy.source == 'occupancy':
            written = kept = logits.sigmoid()
        else:
            kept, position, time_s = self._draw(*self._boxes(outputs, truth, logits.device), state, frames, logits)
            written = state.mask if policy.source == 'previous_detections' else kept
        if training:
            if policy.teacher_forcing > 0 and truth is not None:
                labelled = torch.tensor([meta.is_keyframe for meta in frames.metas])
                forced = ((torch.rand(len(frames.metas)) < policy.teacher_forcing) & labelled).to(logits.device)
                true_mask = self._draw(*pad_rows(truth.boxes), state, frames, logits)[0]
                written = torch.where(forced[:, None, None, None], true_mask, written)
            written = drop_blocks(written, policy.block_dropout, policy.block_cells)
        return ChosenMask(written, kept, position, time_s)

    def _boxes(self, outputs: HeadOutputs | None, truth: SceneTruth | None, device: torch.device) -> tuple[Tensor, Tensor]:
        """The boxes that make the mask, (B, n, 7+), and which count, (B, n) bool; of the head's the surest first."""
        if self.policy.source == 'truth' and truth is not None:
            return pad_rows(truth.boxes)
        if outputs is None:
            raise ValueError(f'temporal.mask_source={self.policy.source!r} needs the boxes that the head finds')
        boxes, there = pad_rows([one.bboxes_3d.tensor for one in outputs.found])
        scores = pad_rows([one.scores_3d for one in outputs.found])[0].masked_fill(~there, -1.0)
        order = scores.argsort(dim=1, descending=True, stable=True)  # the head's own order is by task
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, boxes.shape[2]))
        counts = scores.gather(1, order) >= max(self.policy.score_threshold, 0.0)
        return boxes.to(device, non_blocking=True), counts.to(device, non_blocking=True)

    def _draw(self, boxes: Tensor, valid: Tensor, state: MemoryState, frames: FrameBatch,
              like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (B, n, 7+), of which the valid ones count -> (B, K, Hm, Wm) masks, and where the agents are now."""
        masks, position, time_s = draw_masks(boxes, valid, frames.global_from_bev, state.agent_position, state.agent_time_s,
                                             frames.time_s, self.policy, self.map_range, like.shape[-2:])
        return masks.to(like), position, time_s


def _check_truth(frames: FrameBatch, truth: SceneTruth | None) -> None:
    if truth is None:
        raise ValueError("temporal.mask_source='truth' is for training only: testing has no truth. Test with "
                         "--cfg-options model.temporal.mask_source=occupancy (or detections, none)")
    unlabelled = [meta.sample_token for meta, there in zip(frames.metas, frames.there) if there and not meta.is_keyframe]
    if unlabelled:
        raise ValueError(f"temporal.mask_source='truth', but frame {unlabelled[0]} is a sweep without labels: train on "
                         "keyframes, or set mask_source='occupancy' and masks.teacher_forcing=1")
