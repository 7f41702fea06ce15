"""Testing. In: encoded clips and the session. Out: the last frame's step, after whatever history the test mode gives it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from projects.memfusion.structures import FrameBatch, FrameMeta, SceneFeatures, TemporalState

from .encoded_clip import EncodedClip
from .session import FrameHistory, Session, TestMode, check_order, recall, remember, window_of


@dataclass(frozen=True)
class Recollection:
    """How test frames get their history.

    Attributes:
        detector: its `step` is the only way through a frame, its `temporal` makes empty states.
        mode: streaming or windows.
        session: what frames before left, and what these leave.
    """

    detector: Any
    mode: TestMode
    session: Session

    def last_step(self, clip: EncodedClip, steps: list[FrameBatch], levels: bool) -> Any:
        """The StepOutput of the clips' last frames.

        Args:
            clip: B clips of T frames.
            steps: their T time steps.
            levels: whether a step wants image features.

        Raises:
            ValueError: where frames come without their history or out of order, or a window is no clip.
        """
        features = [clip.at(t, levels) for t in range(clip.length)]
        state = self.detector.temporal.init_state(features[0])
        if self.detector.temporal.alignment == 'loader':
            if clip.length != self.mode.seq_len:
                raise ValueError(f"model.test_cfg.seq_len={self.mode.seq_len}, but the test set's clips hold {clip.length} "
                                 "frames: with align='loader' a window is a clip, so set the test dataset's seq_len alike")
            return self._walk([self._within_tile(step, steps[-1]) for step in steps], features, state)
        if self.mode.rolling:
            histories = [self._extend(features, [step.metas[b] for step in steps], b) for b in range(len(steps[0].metas))]
            frames, seen = window_of(histories, steps[0].valid.device)
            return self._walk(frames, seen, state)
        firsts = tuple(next((step.metas[b] for step in steps if step.metas[b].frame_valid), steps[-1].metas[b])
                       for b in range(len(steps[0].metas)))
        state = recall(self.session, firsts, state)
        out = self._walk(steps, features, state, self.mode.tile)
        remember(self.session, steps, out.state)
        return out

    def _within_tile(self, step: FrameBatch, last: FrameBatch) -> FrameBatch:
        """The step with frames of an earlier tile than the last frame's made padding."""
        tile = self.mode.tile
        if tile is None:
            return step
        return step.with_there([there and meta.frame_index // tile == end.frame_index // tile
                                for there, meta, end in zip(step.there, step.metas, last.metas)])

    def _walk(self, steps: Sequence[FrameBatch], features: Iterable[SceneFeatures], state: TemporalState,
              tile: int | None = None) -> Any:
        for frames, seen in zip(steps, features):
            if tile is not None:
                state = state.reset([age >= tile for age in state.ages])
            out = self.detector.step(seen, state, frames)
            state = out.state
        return out

    def _extend(self, features: Sequence[SceneFeatures], metas: list[FrameMeta], index: int) -> FrameHistory:
        """Scene `index`'s window with the clip's new frames; every frame was encoded once."""
        last = metas[-1]
        history = self.session.history(last.scene_token)
        first = next((meta for meta in metas if meta.frame_valid), last)
        check_order(first, history is not None, history.metas[-1].timestamp_s if history and history.metas else None)
        if history is None or first.is_scene_start:
            history = self.session[last.scene_token] = FrameHistory()
        for meta, seen in zip(metas, features):
            if meta.frame_valid or (meta is last and not history.metas):  # a dropped first frame still owes an answer
                history.push(meta, seen.take([index]), self.mode.seq_len)
        if last.is_scene_end:
            del self.session[last.scene_token]
        return history
