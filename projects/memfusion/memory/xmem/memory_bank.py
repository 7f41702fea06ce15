"""Working and long-term memory of one clip. In: keys and values of written frames, queries. Out: readouts.

The policy of the published inference (Cheng and Schwing, ECCV 2022, section 3.3): the first frame stays for ever; when
working memory is full, all but the first and the newest frames become prototypes; the least used prototypes make room.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..consolidation import consolidate, survivors
from ..similarity import read_memory
from .settings import InferenceSettings


@dataclass(frozen=True)
class Elements:
    """N elements of memory; the last dimension of every tensor counts them.

    Attributes:
        key: (1, CK, N).
        shrinkage: (1, 1, N).
        selection: (1, CK, N); (1, 0, N) in long-term memory, whose elements ask nothing any more.
        value: (1, K, CV, N).
        use_count: (1, N), affinity received in all reads.
        life_count: (1, N), reads lived through.
    """

    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    value: Tensor
    use_count: Tensor
    life_count: Tensor

    @classmethod
    def new(cls, key: Tensor, shrinkage: Tensor, selection: Tensor, value: Tensor) -> Elements:
        """Elements that no read has seen yet."""
        nothing = torch.zeros_like(shrinkage[:, 0], dtype=torch.float32)
        return cls(key, shrinkage, selection, value, nothing, nothing + 1e-7)  # so that their usage is 0, not 0 / 0

    @property
    def size(self) -> int:
        return self.key.shape[-1]

    @property
    def usage(self) -> Tensor:
        """(1, N) affinity received per read."""
        return self.use_count / self.life_count

    def part(self, index: slice | Tensor) -> Elements:
        return Elements(*[getattr(self, field.name)[..., index] for field in fields(self)])

    def extended(self, other: Elements) -> Elements:
        return Elements(*[torch.cat([getattr(self, field.name), getattr(other, field.name)], dim=-1)
                          for field in fields(self)])

    def used(self, affinity: Tensor) -> Elements:
        """After one more read, which gave them `affinity` (1, N)."""
        return Elements(self.key, self.shrinkage, self.selection, self.value,
                        self.use_count + affinity, self.life_count + 1)


class MemoryBank:
    """Memory of one clip with K objects; the caller holds it for as long as the clip lasts."""

    def __init__(self, settings: InferenceSettings) -> None:
        self.settings = settings
        self.working: Elements | None = None
        self.long_term: Elements | None = None

    @property
    def sizes(self) -> tuple[int, int]:
        """Elements in working and in long-term memory."""
        return (0 if self.working is None else self.working.size, 0 if self.long_term is None else self.long_term.size)

    def read(self, query_key: Tensor, query_selection: Tensor) -> Tensor:
        """query_key, query_selection (1, CK, h, w) -> readout (1, K, CV, h, w). Counts usage where long-term is on."""
        if self.working is None:
            raise ValueError('memory was read before a frame was written to it')
        parts = [self.working] if self.long_term is None else [self.long_term, self.working]
        key, shrinkage, value = (
            getattr(parts[0], name) if len(parts) == 1 else torch.cat([getattr(part, name) for part in parts], dim=-1)
            for name in ('key', 'shrinkage', 'value'))
        readout = read_memory(query_key.flatten(2), query_selection.flatten(2), key, shrinkage, value.flatten(1, 2),
                              top_k=self.settings.top_k, return_usage=self.settings.enable_long_term)
        if isinstance(readout, tuple):
            readout, usage = readout
            consolidated = usage.shape[1] - self.working.size
            self.working = self.working.used(usage[:, consolidated:])
            if self.long_term is not None:
                self.long_term = self.long_term.used(usage[:, :consolidated])
        return readout.unflatten(2, query_key.shape[2:]).unflatten(1, value.shape[1:3])

    def write(self, key: Tensor, shrinkage: Tensor, selection: Tensor, value: Tensor) -> None:
        """Remembers a frame: (1, CK, h, w), (1, 1, h, w), (1, CK, h, w), (1, K, CV, h, w); consolidates what is full."""
        new = Elements.new(key.flatten(2), shrinkage.flatten(2), selection.flatten(2), value.flatten(3))
        self.working = new if self.working is None else self.working.extended(new)
        if self.settings.enable_long_term and self.working.size >= self.settings.max_mid_term_frames * new.size:
            self._consolidate(self.working, cells=new.size)

    def _consolidate(self, working: Elements, cells: int) -> None:
        """All frames but the first one and the newest, `min_mid_term_frames` together, become prototypes."""
        newest = working.size - (self.settings.min_mid_term_frames - 1) * cells
        candidates = working.part(slice(cells, newest))
        made = consolidate(candidates.key, candidates.shrinkage, candidates.selection, candidates.value, candidates.usage,
                           self.settings.num_prototypes)
        prototypes = Elements.new(made.key, made.shrinkage, made.key[:, :0], made.value)
        self.working = working.part(slice(0, cells)).extended(working.part(slice(newest, None)))
        if self.long_term is None:
            self.long_term = prototypes
            return
        room = self.settings.max_long_term_elements - self.settings.num_prototypes
        kept = survivors(self.long_term.usage, room)[0]
        self.long_term = self.long_term.part(kept).extended(prototypes)
