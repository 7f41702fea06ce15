"""Slot `temporal`: XMem-style memory. In: features of one frame, MemoryState. Out: BEV that remembers, the next state.

The events of a step are `align`, `read`, the head, `write`, the same in training and testing; `write` chooses the mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.common.build import build_from
from projects.geometry import BEVGrid, cell_positions, move_positions, pad_rows, rasterize_box_batch, transform_points, warp_bev
from projects.geometry.frame_sampling import build_keeper
from projects.memfusion.structures import (
    FrameBatch,
    HeadOutputs,
    MemorySizes,
    MemoryState,
    Readout,
    SceneFeatures,
    SceneTruth,
)

from .bev_network import MemoryQuery, union_logits
from .key_position import KeyPosition
from .long_term import LongTermPolicy, consolidate_oldest
from .mask_choice import MaskChooser
from .masks import MaskPolicy
from .motion import NUM_EGO_CHANNELS, MotionGate, append_ego_channels, ego_values
from .similarity import affinity_of, read_memory
from .slot import TemporalSlot, clock
from .slot_choice import slots_that_stay

STORED_CELLS = ('all', 'observed')


@dataclass(frozen=True)
class ReadCarry:
    """What `write` needs of a read: the query, the new sensory state (B, K, Ch, ...), agent logits, usage (B, L + F Hm Wm),
    and which BEV cells (B, 1, H, W) hold a point, where that is known."""

    query: MemoryQuery
    sensory: Tensor
    agent_logits: Tensor
    usage: Tensor | None
    observed: Tensor | None


@MODELS.register_module()
class TemporalMemory(TemporalSlot):
    """XMem-style memory over BEV features: sensory state, working memory, long-term memory.

    Args:
        network: the memory network, e.g. dict(type='BEVMemoryNetwork', in_channels=...).
        readout: how memory changes the features, e.g. dict(type='GateReadout').
        loss_occ: auxiliary occupancy loss.
        point_cloud_range, alpha, align: as in TemporalSlot. With align='network' the sensory state, mask and feature take
            one warp a step; stored frames keep their grid and only their cell positions are re-expressed.
        max_mem_frames: slots of working memory; the oldest frame leaves first, unless `mem_policy` says otherwise.
        mem_every: every how many frames a frame is written.
        mem_policy: which frame leaves a full working memory: a FrameKeeper, e.g. dict(type='sa'); the newest stays. None is
            the oldest.
        top_k: elements that may answer a query; None is all.
        mask_source: which mask is written with a frame, see MaskPolicy.
        masks: the other settings of MaskPolicy.
        long_term: settings of LongTermPolicy; None is no long-term memory.
        ego_channels: append ego velocity, yaw rate and time gap to the features that the memory sees.
        motion_gate: settings of MotionGate; None is none.
        key_position: what of place the similarity of keys hears. True: the distance between cells, in the current frame (weight
            learned). False: nothing; memory is found by content alone, and a hidden object's empty cells cannot ask for it. A
            dict: settings of KeyPosition, which also knows the ego's poses.
        stored_cells: 'all', or 'observed': only cells that held a point when their frame was written may answer.
    """

    typed_parts = dict(masks=MaskPolicy, long_term=LongTermPolicy, motion_gate=MotionGate, key_position=KeyPosition)
    """What is built of the settings that are parts of the config without a type."""

    hands_on = 'bev'

    def __init__(
        self,
        network: dict,
        readout: dict,
        loss_occ: dict,
        point_cloud_range: Sequence[float],
        alpha: float = 1.0,
        align: str = 'network',
        max_mem_frames: int = 5,
        mem_every: int = 1,
        mem_policy: Mapping[str, Any] | None = None,
        top_k: int | None = None,
        mask_source: str = 'occupancy',
        masks: Mapping[str, Any] | None = None,
        long_term: Mapping[str, Any] | None = None,
        ego_channels: bool = False,
        motion_gate: Mapping[str, Any] | None = None,
        key_position: bool | Mapping[str, Any] = True,
        stored_cells: str = 'all',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(point_cloud_range, alpha, align, init_cfg)
        if max_mem_frames < 1 or mem_every < 1 or (top_k is not None and top_k < 1):
            raise ValueError('temporal.max_mem_frames, mem_every and top_k must be at least 1 (top_k may be None), got '
                             f'{max_mem_frames}, {mem_every} and {top_k}')
        if stored_cells not in STORED_CELLS:
            raise ValueError(f'temporal.stored_cells must be one of {STORED_CELLS}, got {stored_cells!r}')
        if mem_policy is not None and (long_term is not None or align == 'loader'):
            raise ValueError('temporal.mem_policy chooses which frames stay: long_term has a rule of its own, and with '
                             "align='loader' frames have no poses to choose by; leave one of them out")
        self.mem_policy = None if mem_policy is None else build_keeper(mem_policy)
        self.masks = MaskPolicy(source=mask_source, **(masks or {}))
        self.long_term = None if long_term is None else LongTermPolicy(max_mem_frames=max_mem_frames, **long_term)
        self.ego_channels, self.stored_cells = ego_channels, stored_cells
        self.network = build_from(MODELS, {**network, 'extra_channels': NUM_EGO_CHANNELS if ego_channels else 0})
        self.map_range = self.network.map_range(self.point_cloud_range)
        self.readout = build_from(MODELS, {
            **readout, 'in_channels': self.network.in_channels, 'decoded_channels': self.network.feature_dim,
            'upscale': self.network.decoded_stride})
        self.loss_occ = build_from(MODELS, loss_occ)
        self.motion_gate = None if motion_gate is None else MotionGate(**motion_gate)
        position = KeyPosition.of(key_position)
        self.log_locality = nn.Parameter(torch.tensor(2.0)) if position.distance else None
        self.ego_pose = position.build_ego(self.network.key_dim, align)
        self.max_mem_frames, self.mem_every, self.top_k = max_mem_frames, mem_every, top_k

    @property
    def needs_outputs(self) -> bool:  # type: ignore[override]
        """Whether the mask that is written is made of the boxes that the head finds in this very frame."""
        return self.masks.needs_boxes

    @property
    def _compares_features(self) -> bool:
        return self.motion_gate is not None and 'difference' in self.motion_gate.cues

    def init_state(self, features: SceneFeatures) -> MemoryState:
        """An empty state for B scenes with BEV features like these."""
        net, bev = self.network, features.needed_bev
        bev_shape = (bev.shape[-2], bev.shape[-1])
        shape = net.map_shape(bev_shape)
        if self.long_term is not None:
            self.long_term.check(shape)
        sizes = MemorySizes(
            map_shape=shape, mask_shape=net.mask_shape(bev_shape), key_dim=net.key_dim, value_dim=net.value_dim,
            hidden_dim=net.hidden_dim, num_slots=self.max_mem_frames, num_agents=self.masks.num_agents,
            feature_dim=net.query_dim if self._compares_features else 0,
            long_term=0 if self.long_term is None else self.long_term.max_elements)
        return MemoryState.empty(bev.shape[0], sizes, like=bev)

    # -- align --------------------------------------------------------------------------------------------------------
    def align(self, state: MemoryState, frames: FrameBatch) -> MemoryState:
        """Scenes that begin here forget what came before; sensory state, mask and feature move into the current frame."""
        memory = state.reset(frames.starts)
        if self.alignment != 'network':
            return memory
        batch, agents, hidden, height, width = memory.sensory.shape
        cur_from_prev = self.cur_from(memory.global_from_bev, frames)
        if self.ego_pose is not None and self.long_term is not None:
            memory = replace(memory, long_key=self.ego_pose(memory.long_key, cur_from_prev[:, None]))
        maps = warp_bev(torch.cat([memory.sensory.flatten(1, 2), memory.feature], dim=1), cur_from_prev, self.map_range)
        sensory, feature = maps.split([agents * hidden, memory.feature.shape[1]], dim=1)
        return replace(memory, sensory=sensory.reshape(batch, agents, hidden, height, width), feature=feature,
                       mask=warp_bev(memory.mask, cur_from_prev, self.map_range))

    # -- read ---------------------------------------------------------------------------------------------------------
    def read(self, state: MemoryState, features: SceneFeatures, frames: FrameBatch) -> Readout:
        """What memory makes of bev (B, C, H, W)."""
        memory, bev = state, features.needed_bev
        query = self._ask(bev, memory, frames)
        elements = self._elements(memory, frames)
        query_key, query_selection = self._locate_query(query)
        count_usage = self.long_term is not None
        read = read_memory(query_key, query_selection, *elements[:3], top_k=self.top_k, memory_valid=elements[3],
                           return_usage=count_usage, num_valid=self._num_valid(memory))
        remembered, usage = read if isinstance(read, tuple) else (read, None)
        remembered = remembered.view(*memory.sensory.shape[:2], -1, *memory.sensory.shape[-2:])
        sensory = memory.sensory
        if self.motion_gate is not None:
            ego, has_history = ego_values(memory, frames), memory.num_frames > 0
            factor = self.motion_gate(query.feature, memory.feature, ego, has_history)[:, None]
            remembered, sensory = remembered * factor, sensory * factor
        decoded, agent_logits, sensory = self.network.decode(query, remembered, sensory)
        occ_logits = self.network.crop(union_logits(agent_logits))
        return Readout(self.readout(bev, decoded, occ_logits, self.alpha), aux=dict(occ_logits=occ_logits),
                       carried=ReadCarry(query, sensory, agent_logits, usage, features.observed),
                       heat=self.readout.heat(occ_logits, bev.shape[-2:], self.alpha))

    def _ask(self, bev: Tensor, memory: MemoryState, frames: FrameBatch) -> MemoryQuery:
        """The frame's query, of the features with the ego channels where they are wanted."""
        seen = append_ego_channels(bev, ego_values(memory, frames)) if self.ego_channels else bev
        return self.network.encode_query(seen)

    def _elements(self, memory: MemoryState, frames: FrameBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Everything that may answer, long-term first: key (B, CK', N), shrinkage, value (B, K CV, N), valid (B, N)."""
        filled = self._filled(memory)

        def flat(tensor: Tensor) -> Tensor:  # (B, F, C, Hm, Wm) -> (B, C, filled Hm Wm)
            return tensor[:, -filled:].transpose(1, 2).flatten(2)

        key, shrinkage = flat(self._keys_from_now(memory, frames)), flat(memory.shrinkage)
        value = flat(memory.value.flatten(2, 3))
        valid = (memory.cell_valid & memory.slot_valid[..., None, None])[:, -filled:].flatten(1)
        if self.log_locality is not None:
            key = torch.cat([key, self._slot_positions(memory, frames)[:, :, -filled:].flatten(2)], dim=1)
        if self.long_term is None:
            return key, shrinkage, value, valid
        long_key = memory.long_key
        if self.log_locality is not None:
            position = transform_points(self._cur_from_global(frames), memory.long_position.transpose(1, 2))[..., :2]
            long_key = torch.cat([long_key, self._in_cells(position.transpose(1, 2), memory)], dim=1)
        return (torch.cat([long_key, key], dim=2), torch.cat([memory.long_shrinkage, shrinkage], dim=2),
                torch.cat([memory.long_value.flatten(1, 2), value], dim=2), torch.cat([memory.long_valid, valid], dim=1))

    def _keys_from_now(self, memory: MemoryState, frames: FrameBatch) -> Tensor:
        """(B, F, CK, Hm, Wm): the stored keys as the current frame sees them; as they are where poses do not count."""
        if self.ego_pose is None:
            return memory.key
        moved = self.ego_pose(memory.key.transpose(1, 2).flatten(2), self.cur_from(memory.slot_global_from_bev, frames))
        return moved.unflatten(2, (memory.key.shape[1], *memory.key.shape[3:])).transpose(1, 2)

    def _filled(self, memory: MemoryState) -> int:
        """Slots that any of the scenes has filled, at least 1, as the host knows from how many frames were seen."""
        # New frames enter at the end: empty slots in front, common in clips and early in a scene, need not be read.
        return max(1, *self._written_slots(memory))

    def _written_slots(self, memory: MemoryState) -> list[int]:
        """B counts of slots that hold a frame."""
        written = [-(-age // self.mem_every) for age in memory.ages]
        if self.long_term is not None:
            return [self.long_term.filled_slots(count) for count in written]
        return [min(count, self.max_mem_frames) for count in written]

    def _num_valid(self, memory: MemoryState) -> list[int] | None:
        """B counts of elements that may answer; None where they depend on what was seen, so that the host cannot know them."""
        if self.long_term is not None or self.stored_cells != 'all':
            return None
        cells = memory.cell_valid.shape[-2] * memory.cell_valid.shape[-1]
        return [count * cells for count in self._written_slots(memory)]

    def _locate_query(self, query: MemoryQuery) -> tuple[Tensor, Tensor]:
        """The query's key and selection (B, CK', Hm Wm), with its cells' positions where keys have them."""
        key, selection = query.key.flatten(2), query.selection.flatten(2)
        if self.log_locality is None:
            return key, selection
        position = self._own_positions(query.key).expand(key.shape[0], -1, -1, -1).flatten(2)
        weight = self.log_locality.exp().expand(key.shape[0], 2, key.shape[2])
        return torch.cat([key, position.to(key.dtype)], dim=1), torch.cat([selection, weight], dim=1)

    def _centers(self, like: Tensor) -> Tensor:
        return cell_positions((like.shape[-2], like.shape[-1]), self.map_range, like.device)

    def _own_positions(self, like: Tensor) -> Tensor:
        """(1, 2, Hm, Wm) float32 positions of the current frame's cells, in memory cells."""
        return self._in_cells(self._centers(like).permute(2, 0, 1)[None], like)

    def _slot_positions(self, memory: MemoryState, frames: FrameBatch) -> Tensor:
        """(B, 2, F, Hm, Wm) float32 positions of all stored cells in the current frame, in memory cells."""
        centers = self._centers(memory.key).expand(*memory.slot_valid.shape, -1, -1, -1)
        if self.alignment == 'network':
            centers = move_positions(centers, self.cur_from(memory.slot_global_from_bev, frames))
        return self._in_cells(centers.permute(0, 4, 1, 2, 3), memory.key)

    def _in_cells(self, position_m: Tensor, like: Tensor | MemoryState) -> Tensor:
        """Positions (B, 2, ...) in metres -> float32, in memory cells."""
        size = self._cell_m((like.key if isinstance(like, MemoryState) else like).shape[-2:])
        return torch.stack([position_m[:, axis] / size[axis] for axis in (0, 1)], dim=1).float()

    def _cell_m(self, map_shape: Sequence[int]) -> tuple[float, float]:
        """Size of a memory cell along x and y, metres."""
        x_min, y_min, _, x_max, y_max, _ = self.map_range
        return (x_max - x_min) / map_shape[1], (y_max - y_min) / map_shape[0]

    def _cur_from_global(self, frames: FrameBatch) -> Tensor:
        """(B, 4, 4); the identity where memory is not aligned, whose positions are then those of the frames' own grids."""
        if self.alignment == 'network':
            return frames.bev_from_global
        return torch.eye(4, dtype=torch.float64, device=frames.valid.device).expand(len(frames.valid), 4, 4)

    @torch.no_grad()
    def attention(self, bev: Tensor, memory: MemoryState, frames: FrameBatch, cell: tuple[int, int]) -> Tensor:
        """Where a cell of the current frame looks: (B, F, Hm, Wm) affinities over the stored frames.

        Args:
            bev: (B, C, H, W); memory: aligned to `frames`.
            cell: (row, column) of the memory grid.

        Returns:
            Affinities that sum to 1 (with what long-term memory got); 0 where nothing is stored.
        """
        query = self._ask(bev, memory, frames)
        index = cell[0] * query.key.shape[-1] + cell[1]
        key, selection = (part[..., index:index + 1] for part in self._locate_query(query))
        memory_key, shrinkage, _, valid = self._elements(memory, frames)
        affinity = affinity_of(key, selection, memory_key, shrinkage, self.top_k, valid)[:, 0]
        slots = self._filled(memory)
        maps = affinity[:, affinity.shape[1] - slots * query.key.shape[-2] * query.key.shape[-1]:]
        answer = torch.zeros_like(memory.usage)
        answer[:, -slots:] = maps.view(-1, slots, *query.key.shape[-2:])
        return answer

    # -- write --------------------------------------------------------------------------------------------------------
    def write(self, state: MemoryState, readout: Readout, outputs: HeadOutputs | None, frames: FrameBatch,
              truth: SceneTruth | None = None) -> MemoryState:
        """The state after this frame, written with the mask that the policy chooses.

        Raises:
            ValueError: mask_source='truth' in testing, or at a frame without labels.
        """
        carry: ReadCarry = readout.carried
        chooser = MaskChooser(self.masks, self.map_range)
        mask = chooser.choose(carry.agent_logits, state, frames, outputs, truth if self.training else None, self.training)
        memory = state
        value, deep_sensory = self.network.encode_value(carry.query, mask.written, carry.sensory)
        writes = memory.num_frames % self.mem_every == 0
        memory = self._count_usage(memory, carry.usage)
        cells = self._answering_cells(carry.observed, memory)
        selection = carry.query.selection if self.long_term is not None else carry.query.selection[:, :0]
        stays = slots_that_stay(self.mem_policy, memory, memory.cell_valid, frames, cells, self.map_range)

        def push(stored: Tensor, new: Tensor) -> Tensor:
            moved = torch.cat([stored[stays], new[:, None].to(stored.dtype)], dim=1)
            return torch.where(writes.view(-1, *[1] * (stored.dim() - 1)), moved, stored)

        memory = replace(
            memory,
            sensory=torch.where(writes.view(-1, 1, 1, 1, 1), deep_sensory, carry.sensory).to(memory.sensory.dtype),
            mask=mask.kept.to(memory.mask.dtype),
            feature=carry.query.feature.to(memory.feature.dtype) if self._compares_features else memory.feature,
            key=push(memory.key, carry.query.key),
            shrinkage=push(memory.shrinkage, carry.query.shrinkage),
            selection=push(memory.selection, selection),
            value=push(memory.value, value),
            slot_valid=push(memory.slot_valid, torch.ones_like(writes)),
            cell_valid=push(memory.cell_valid, cells),
            slot_time_s=push(memory.slot_time_s, frames.time_s),
            slot_global_from_bev=push(memory.slot_global_from_bev, frames.global_from_bev),
            usage=push(memory.usage, torch.zeros_like(memory.usage[:, 0])),
            life=push(memory.life, torch.zeros_like(memory.life[:, 0])),
            agent_position=mask.agent_position, agent_time_s=mask.agent_time_s, **clock(frames, memory))
        if self.long_term is None:
            return memory
        full = [row for row, age in enumerate(memory.ages)
                if (age - 1) % self.mem_every == 0 and self.long_term.fills(-(-age // self.mem_every))]
        positions_m = self._global_positions(memory)
        here_m = transform_points(self._cur_from_global(frames), positions_m.flatten(1, 3))
        return consolidate_oldest(memory, self.long_term, full, self._keys_from_now(memory, frames), positions_m,
                                  self._in_cells(here_m[..., :2].transpose(1, 2), memory),
                                  None if self.log_locality is None else self.log_locality.exp())

    def _global_positions(self, memory: MemoryState) -> Tensor:
        """(B, F, Hm, Wm, 3) float64: where all stored cells lie; in their own grids where memory is not aligned."""
        ground = F.pad(self._centers(memory.key), (0, 1)).flatten(0, 1)
        ground = ground.expand(*memory.slot_valid.shape, -1, -1)
        if self.alignment == 'network':
            ground = transform_points(memory.slot_global_from_bev, ground)
        return ground.reshape(*memory.cell_valid.shape, 3)

    def _answering_cells(self, observed: Tensor | None, memory: MemoryState) -> Tensor:
        """(B, Hm, Wm) bool: which of the frame's cells may answer later."""
        if self.stored_cells == 'all':
            return torch.ones_like(memory.cell_valid[:, 0])
        if observed is None:
            raise ValueError("temporal.stored_cells='observed' needs to know which cells hold points")
        return F.adaptive_max_pool2d(self.network.pad(observed.float()), memory.cell_valid.shape[-2:])[:, 0] > 0

    def _count_usage(self, memory: MemoryState, usage: Tensor | None) -> MemoryState:
        """Adds one read to what was there to be read; usage (B, L + filled Hm Wm)."""
        if usage is None:
            return memory
        length, filled = memory.long_valid.shape[1], self._filled(memory)
        slots = memory.usage.clone()
        slots[:, -filled:] += usage[:, length:].view(-1, filled, *memory.usage.shape[-2:])
        return replace(memory, usage=slots, life=memory.life + memory.slot_valid,
                       long_usage=memory.long_usage + usage[:, :length], long_life=memory.long_life + memory.long_valid)

    # -- loss ---------------------------------------------------------------------------------------------------------
    def loss(self, readout: Readout, features: SceneFeatures, truth: SceneTruth) -> dict[str, Tensor]:
        """Occupancy loss of V labelled frames, against the union of their true boxes, drawn at BEV resolution."""
        occ_logits = readout.aux['occ_logits']
        grid = BEVGrid.of_shape(self.point_cloud_range, features.needed_bev.shape[-2:])
        target = occ_logits.new_zeros(len(truth.boxes), 1, *grid.bev_shape)
        if truth.boxes:
            boxes, valid = pad_rows([boxes[:, :7] for boxes in truth.boxes])
            target = rasterize_box_batch(boxes, valid, grid)[:, None].to(target)
        return self.loss_occ(occ_logits, F.adaptive_max_pool2d(target, occ_logits.shape[-2:]))

    def predictions(self, readout: Readout) -> dict[str, Tensor]:
        """pred_occupancy (B, 1, Hm, Wm), probabilities."""
        return dict(pred_occupancy=readout.aux['occ_logits'].sigmoid())
