"""Settings of XMem's inference. In: the published numbers. Out: the same, checked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InferenceSettings:
    """When a clip is remembered and how much of it; the defaults are the published ones.

    Attributes:
        mem_every: a frame is written when this many frames have passed since the last written one.
        deep_update_every: written frames update the sensory state deeply when this many frames have passed since the last
            deep update; below 0, all of them do, and then only they go without the update of every frame.
        top_k: how many elements answer each query; None is all.
        enable_long_term: whether working memory is consolidated. Without it, it grows without end.
        max_mid_term_frames: frames in working memory (the first one included) at which consolidation happens.
        min_mid_term_frames: frames that then stay: the first one and the newest.
        num_prototypes: elements that all others become.
        max_long_term_elements: cap of long-term memory; its least used elements go first.
    """

    mem_every: int = 5
    deep_update_every: int = -1
    top_k: int | None = 30
    enable_long_term: bool = True
    max_mid_term_frames: int = 10
    min_mid_term_frames: int = 5
    num_prototypes: int = 128
    max_long_term_elements: int = 10000

    def __post_init__(self) -> None:
        for name in ('mem_every', 'min_mid_term_frames', 'num_prototypes'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, got {getattr(self, name)}')
        if self.top_k is not None and (isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or self.top_k < 1):
            raise ValueError(f'top_k must be a whole number of at least 1, or None for all elements, got {self.top_k!r}')
        if not self.enable_long_term:
            return
        if self.min_mid_term_frames >= self.max_mid_term_frames:
            raise ValueError(f'min_mid_term_frames={self.min_mid_term_frames} must be less than max_mid_term_frames='
                             f'{self.max_mid_term_frames}: otherwise nothing is consolidated')
        if self.max_long_term_elements < self.num_prototypes:
            raise ValueError(f'max_long_term_elements={self.max_long_term_elements} must be at least num_prototypes='
                             f'{self.num_prototypes}: one consolidation would not fit')

    def check_cells(self, cells: int, num_frames: int | None = None) -> None:
        """Raises ValueError where frames have too few cells for `num_prototypes`.

        Args:
            cells: memory cells of a frame.
            num_frames: length of the clip. Clips too short to be consolidated are not checked; None is an endless clip.
        """
        if not self.enable_long_term:
            return
        if num_frames is not None and 1 + (num_frames - 1) // self.mem_every < self.max_mid_term_frames:
            return
        candidates = (self.max_mid_term_frames - self.min_mid_term_frames) * cells
        if candidates < self.num_prototypes:
            raise ValueError(f'num_prototypes={self.num_prototypes}, but only {candidates} elements are consolidated at a '
                             f'time ({cells} cells a frame): lower num_prototypes or raise max_mid_term_frames')
