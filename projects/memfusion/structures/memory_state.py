"""Contract, no network: what a temporal module remembers. In and out of every memory block, batched, never hidden."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

State = TypeVar('State', bound='TemporalState')


@dataclass(frozen=True)
class TemporalState:
    """What every temporal module remembers of B scenes; subclasses add their tensors, all with the batch first.

    A subclass whose tensors hold poses names them in POSES, after those of its base: a pose that is forgotten becomes the
    identity, everything else 0.

    Attributes:
        ages: B counts of valid frames seen since the scene began, on the host.
        num_frames: (B,) int64, the same on the device.
        time_s: (B,) float64, stamp of the last frame.
        global_from_bev: (B, 4, 4) float64, augmented LiDAR frame of the last frame to global.
        global_from_lidar: (B, 4, 4) float64, raw LiDAR frame of the last frame to global: where the sensor really was.
    """

    POSES: ClassVar[tuple[str, ...]] = ('global_from_bev', 'global_from_lidar')

    ages: tuple[int, ...]
    num_frames: Tensor
    time_s: Tensor
    global_from_bev: Tensor
    global_from_lidar: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """What lies on the device, by name; the batch first."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != 'ages'}

    def _map(self: State, function: Callable[[Tensor], Tensor]) -> State:
        changed: dict[str, Any] = {name: function(tensor) for name, tensor in self.tensors().items()}
        return replace(self, **changed)

    @property
    def batch_size(self) -> int:
        """B."""
        return len(self.ages)

    @property
    def num_bytes(self) -> int:
        """Bytes held by all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def detach(self: State) -> State:
        """The same content outside the autograd graph: this is how truncated back-propagation is done."""
        return self._map(Tensor.detach)

    def select(self: State, rows: Sequence[int]) -> State:
        """The samples at `rows`, B' positions, copied."""
        picked = self._map(lambda tensor: torch.cat([tensor[row:row + 1] for row in rows]))
        return replace(picked, ages=tuple(self.ages[row] for row in rows))

    def put(self: State, rows: Sequence[int], other: State) -> State:
        """This state with the samples at `rows`, B' positions, replaced by those of `other`."""
        index, theirs = torch.tensor(list(rows)).to(self.num_frames.device, non_blocking=True), other.tensors()
        mixed = {name: mine.index_copy(0, index, theirs[name]) for name, mine in self.tensors().items()}
        ages = dict(enumerate(self.ages)) | dict(zip(rows, other.ages))
        return replace(self, ages=tuple(ages.values()), **mixed)

    def where(self: State, which: Sequence[bool], other: State) -> State:
        """This state where `which`, B bools on the host, is True, `other` elsewhere."""
        if all(which):
            return self
        if not any(which):
            return other
        theirs = other.tensors()
        mask = torch.tensor(list(which)).to(self.num_frames.device, non_blocking=True)

        def pick(name: str, mine: Tensor) -> Tensor:
            return torch.where(mask.view(-1, *[1] * (mine.dim() - 1)), mine, theirs[name])

        mixed = {name: pick(name, mine) for name, mine in self.tensors().items()}
        ages = tuple(a if mine else b for mine, a, b in zip(which, self.ages, other.ages))
        return replace(self, ages=ages, **mixed)

    def reset(self: State, which: Sequence[bool]) -> State:
        """Forgets everything of the samples where `which`, B bools on the host, is True; the others stay as they are."""
        if not any(which):
            return self
        fresh = replace(self._map(torch.zeros_like), ages=(0,) * len(self.ages))
        eye = torch.eye(4, dtype=torch.float64, device=self.num_frames.device)
        poses: dict[str, Any] = {name: eye.expand_as(getattr(self, name)) for name in self.POSES}
        return replace(fresh, **poses).where(which, self)

    @staticmethod
    def cat(states: Sequence[State]) -> State:
        """Joins states along the batch; one alone stays as it is."""
        if len(states) == 1:
            return states[0]
        tensors = [state.tensors() for state in states]
        joined = {name: torch.cat([one[name] for one in tensors]) for name in tensors[0]}
        return replace(states[0], ages=tuple(age for state in states for age in state.ages), **joined)


def empty_clock(batch_size: int, like: Tensor) -> dict[str, Any]:
    """The fields of TemporalState for scenes that have seen nothing; `like` gives the device."""
    eye = torch.eye(4, dtype=torch.float64, device=like.device).expand(batch_size, 4, 4)
    return dict(
        ages=(0,) * batch_size, num_frames=torch.zeros(batch_size, dtype=torch.int64, device=like.device),
        time_s=torch.zeros(batch_size, dtype=torch.float64, device=like.device),
        global_from_bev=eye.clone(), global_from_lidar=eye.clone())


@dataclass(frozen=True)
class MemorySizes:
    """What decides the bytes of a MemoryState.

    Attributes:
        map_shape: (Hm, Wm).
        key_dim, value_dim, hidden_dim: CK, CV, Ch.
        num_slots: F, frames of working memory.
        num_agents: K, masks that are remembered side by side.
        feature_dim: D, channels of the last frame's feature; 0 where nobody compares features.
        long_term: L, elements of long-term memory; 0 is none.
        mask_shape: (Hk, Wk) of the masks; None is map_shape.
    """

    map_shape: tuple[int, int]
    key_dim: int
    value_dim: int
    hidden_dim: int
    num_slots: int
    num_agents: int = 1
    feature_dim: int = 0
    long_term: int = 0
    mask_shape: tuple[int, int] | None = None


@dataclass(frozen=True)
class MemoryState(TemporalState):
    """Sensory, working and long-term memory of B scenes.

    Working memory is F slots, oldest first; long-term memory is L elements without order in space. What holds nothing
    has its `valid` False and zeros elsewhere, so the bytes are constant and scenes of different age share a batch.
    Stored maps stay in the BEV frame they were written in; `slot_global_from_bev` says which. The K agents share keys.

    Attributes:
        sensory: (B, K, Ch, Hm, Wm) recurrent state, in the last frame's grid.
        mask: (B, K, Hk, Wk) the mask that the last frame wrote, probabilities, in the last frame's grid.
        feature: (B, D, Hm, Wm) the last frame's feature, in its grid.
        key: (B, F, CK, Hm, Wm).
        shrinkage: (B, F, 1, Hm, Wm), at least 1 where valid.
        selection: (B, F, CK, Hm, Wm); (B, F, 0, Hm, Wm) without long-term memory, which alone needs it.
        value: (B, F, K, CV, Hm, Wm).
        slot_valid: (B, F) bool.
        cell_valid: (B, F, Hm, Wm) bool, which cells of a slot may answer.
        slot_time_s: (B, F) float64, seconds.
        slot_global_from_bev: (B, F, 4, 4) float64.
        usage: (B, F, Hm, Wm) affinity that each cell got in all reads so far.
        life: (B, F) reads since the slot was written.
        long_key, long_shrinkage: (B, CK, L), (B, 1, L).
        long_value: (B, K, CV, L).
        long_position: (B, 3, L) float64, global metres of the cells that became prototypes.
        long_valid: (B, L) bool.
        long_usage, long_life: (B, L).
        agent_position: (B, K, 2) float64, global metres: where each tracked agent was last.
        agent_time_s: (B, K) float64; 0 where the slot is free.
    """

    POSES: ClassVar[tuple[str, ...]] = (*TemporalState.POSES, 'slot_global_from_bev')

    sensory: Tensor
    mask: Tensor
    feature: Tensor
    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    value: Tensor
    slot_valid: Tensor
    cell_valid: Tensor
    slot_time_s: Tensor
    slot_global_from_bev: Tensor
    usage: Tensor
    life: Tensor
    long_key: Tensor
    long_shrinkage: Tensor
    long_value: Tensor
    long_position: Tensor
    long_valid: Tensor
    long_usage: Tensor
    long_life: Tensor
    agent_position: Tensor
    agent_time_s: Tensor

    @classmethod
    def empty(cls, batch_size: int, sizes: MemorySizes, like: Tensor) -> MemoryState:
        """A state that remembers nothing; `like` is a tensor that gives the device.

        Floats are float32 whatever its type: half precision would spoil the similarities.
        """
        slots, agents, length = sizes.num_slots, sizes.num_agents, sizes.long_term

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(batch_size, *shape, dtype=dtype, device=like.device)

        eye = torch.eye(4, dtype=torch.float64, device=like.device)
        return cls(
            **empty_clock(batch_size, like),
            sensory=zeros(agents, sizes.hidden_dim, *sizes.map_shape),
            mask=zeros(agents, *(sizes.mask_shape or sizes.map_shape)),
            feature=zeros(sizes.feature_dim, *sizes.map_shape),
            key=zeros(slots, sizes.key_dim, *sizes.map_shape),
            shrinkage=zeros(slots, 1, *sizes.map_shape),
            selection=zeros(slots, sizes.key_dim if length else 0, *sizes.map_shape),
            value=zeros(slots, agents, sizes.value_dim, *sizes.map_shape),
            slot_valid=zeros(slots, dtype=torch.bool),
            cell_valid=zeros(slots, *sizes.map_shape, dtype=torch.bool),
            slot_time_s=zeros(slots, dtype=torch.float64),
            slot_global_from_bev=eye.expand(batch_size, slots, 4, 4).clone(),
            usage=zeros(slots, *sizes.map_shape),
            life=zeros(slots),
            long_key=zeros(sizes.key_dim, length),
            long_shrinkage=zeros(1, length),
            long_value=zeros(agents, sizes.value_dim, length),
            long_position=zeros(3, length, dtype=torch.float64),
            long_valid=zeros(length, dtype=torch.bool),
            long_usage=zeros(length),
            long_life=zeros(length),
            agent_position=zeros(agents, 2, dtype=torch.float64),
            agent_time_s=zeros(agents, dtype=torch.float64),
        )
