"""Contract, no network: what a temporal module remembers. In and out of every memory block, batched, never hidden."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class MemoryState:
    """Sensory state and working memory of B scenes; every tensor has the batch first.

    Working memory is F slots, oldest first. Slots that hold nothing have `slot_valid` False and zeros elsewhere, so
    its bytes are constant and scenes of different age share a batch. Stored maps stay in the BEV frame they were
    written in; `slot_global_from_bev` says which.

    Attributes:
        sensory: (B, Ch, Hm, Wm) recurrent state.
        key: (B, F, CK, Hm, Wm).
        shrinkage: (B, F, 1, Hm, Wm), at least 1 where valid.
        value: (B, F, CV, Hm, Wm).
        slot_valid: (B, F) bool.
        slot_time_s: (B, F) float64, seconds.
        slot_global_from_bev: (B, F, 4, 4) float64.
        mask: (B, 1, Hm, Wm) the mask that the last frame wrote, probabilities.
        num_frames: (B,) int64, valid frames seen since the scene began.
        time_s: (B,) float64, stamp of the last frame.
        global_from_bev: (B, 4, 4) float64, pose of the last frame (that of `sensory` and `mask`).
    """

    sensory: Tensor
    key: Tensor
    shrinkage: Tensor
    value: Tensor
    slot_valid: Tensor
    slot_time_s: Tensor
    slot_global_from_bev: Tensor
    mask: Tensor
    num_frames: Tensor
    time_s: Tensor
    global_from_bev: Tensor

    @classmethod
    def empty(
        cls,
        batch_size: int,
        map_shape: tuple[int, int],
        key_dim: int,
        value_dim: int,
        hidden_dim: int,
        num_slots: int,
        like: Tensor,
    ) -> MemoryState:
        """A state that remembers nothing.

        Args:
            map_shape: (Hm, Wm).
            like: a tensor that gives the device. Floats are float32 whatever its type: half precision would spoil the
                similarities.
        """
        height, width = map_shape

        def zeros(*shape: int, dtype: torch.dtype | None = None) -> Tensor:
            return torch.zeros(batch_size, *shape, dtype=dtype or torch.float32, device=like.device)

        eye = torch.eye(4, dtype=torch.float64, device=like.device)
        return cls(
            sensory=zeros(hidden_dim, height, width),
            key=zeros(num_slots, key_dim, height, width),
            shrinkage=zeros(num_slots, 1, height, width),
            value=zeros(num_slots, value_dim, height, width),
            slot_valid=zeros(num_slots, dtype=torch.bool),
            slot_time_s=zeros(num_slots, dtype=torch.float64),
            slot_global_from_bev=eye.expand(batch_size, num_slots, 4, 4).clone(),
            mask=zeros(1, height, width),
            num_frames=zeros(dtype=torch.int64),
            time_s=zeros(dtype=torch.float64),
            global_from_bev=eye.expand(batch_size, 4, 4).clone(),
        )

    def _map(self, function: Callable[[Tensor], Tensor]) -> MemoryState:
        return replace(self, **{f.name: function(getattr(self, f.name)) for f in fields(self)})

    @property
    def batch_size(self) -> int:
        """B."""
        return self.num_frames.shape[0]

    @property
    def num_bytes(self) -> int:
        """Bytes held by all tensors."""
        return sum(getattr(self, f.name).nbytes for f in fields(self))

    def detach(self) -> MemoryState:
        """The same content outside the autograd graph: this is how truncated back-propagation is done."""
        return self._map(Tensor.detach)

    def zero(self) -> Tensor:
        """A scalar 0 that depends on everything stored, so that DDP sees a gradient for parameters nobody read yet."""
        return 0.0 * (self.sensory.sum() + self.key.sum() + self.shrinkage.sum() + self.value.sum())

    def select(self, indices: Sequence[int] | Tensor) -> MemoryState:
        """The samples at `indices` (B' integers), copied."""
        index = torch.as_tensor(indices, dtype=torch.long, device=self.num_frames.device)
        return self._map(lambda tensor: tensor.index_select(0, index))

    def reset(self, which: Tensor) -> MemoryState:
        """Forgets everything of the samples where `which` (B,) bool is True; the others stay as they are."""
        if not which.any():
            return self
        fresh = MemoryState.empty(
            self.batch_size, self.sensory.shape[-2:], self.key.shape[2], self.value.shape[2], self.sensory.shape[1],
            self.key.shape[1], like=self.sensory)
        return fresh.where(which, self)

    def where(self, which: Tensor, other: MemoryState) -> MemoryState:
        """This state where `which` (B,) bool is True, `other` elsewhere."""

        def pick(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(which.view(-1, *[1] * (mine.dim() - 1)), mine, theirs)

        return replace(self, **{f.name: pick(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)})

    @staticmethod
    def cat(states: Sequence[MemoryState]) -> MemoryState:
        """Joins states along the batch."""
        return replace(states[0], **{f.name: torch.cat([getattr(s, f.name) for s in states])
                                     for f in fields(MemoryState)})
