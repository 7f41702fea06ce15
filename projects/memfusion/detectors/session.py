"""Testing. In: the session and a time step of B scenes. Out: a batched state, and back. One object holds what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from projects.memfusion.structures import FrameBatch, FrameMeta, SceneFeatures, TemporalState

MODES = ('streaming', 'window')


@dataclass(frozen=True)
class TestMode:
    """How history reaches a test frame.

    Attributes:
        mode: 'streaming': memory is carried from frame to frame; 'window': history is the last `seq_len` frames.
        seq_len: frames of a window, the current one included.
        stride: 1: every frame ends a window of its own (rolling); seq_len: windows lie end to end (tiled).
    """

    mode: str = 'streaming'
    seq_len: int = 8
    stride: int = 1

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f'model.test_cfg.mode must be one of {MODES}, got {self.mode!r}')
        if self.seq_len < 1:
            raise ValueError(f'model.test_cfg.seq_len must be at least 1, got {self.seq_len}')
        if self.mode == 'window' and self.stride not in (1, self.seq_len):
            raise ValueError(f'model.test_cfg.stride must be 1 (rolling) or seq_len={self.seq_len} (tiled), got {self.stride}')

    @property
    def rolling(self) -> bool:
        """Whether every frame ends a window of its own."""
        return self.mode == 'window' and self.stride == 1

    @property
    def tile(self) -> int | None:
        """Frames after which memory starts anew; None is never."""
        return self.seq_len if self.mode == 'window' and self.stride == self.seq_len else None


@dataclass
class FrameHistory:
    """A scene's last encoded frames, oldest first: what a rolling window reads again."""

    metas: list[FrameMeta] = field(default_factory=list)
    features: list[SceneFeatures] = field(default_factory=list)

    def push(self, meta: FrameMeta, features: SceneFeatures, limit: int) -> None:
        """Adds a frame (B is 1) and forgets what lies more than `limit` frames back."""
        self.metas = [*self.metas, meta][-limit:]
        self.features = [*self.features, features][-limit:]


@dataclass(frozen=True)
class StreamedScene:
    """What a scene's last frame left: the state of one row, and the stamp of its last valid frame; None before the first."""

    state: TemporalState
    time_s: float | None


class Session(dict[str, StreamedScene | FrameHistory]):
    """What test frames leave for the next ones, by scene token: StreamedScene in streaming, FrameHistory in rolling windows."""

    def streamed(self, token: str) -> StreamedScene | None:
        """The scene's entry in streaming; None where it is new."""
        entry = self.get(token)
        assert entry is None or isinstance(entry, StreamedScene)
        return entry

    def history(self, token: str) -> FrameHistory | None:
        """The scene's entry in rolling windows; None where it is new."""
        entry = self.get(token)
        assert entry is None or isinstance(entry, FrameHistory)
        return entry


def check_order(meta: FrameMeta, known: bool, last_time_s: float | None) -> None:
    """Raises ValueError, naming scene and frame, where a frame comes without its history or out of time order."""
    if not meta.is_scene_start and not known:
        raise ValueError(
            f'frame {meta.frame_index} of scene {meta.scene_token} came without the frames before it: testing with memory '
            "needs time order (sampler=dict(type='SceneSampler'), batch_sampler=dict(type='SceneBatchSampler'))")
    if not meta.is_scene_start and last_time_s is not None and meta.timestamp_s <= last_time_s:
        raise ValueError(f'frame {meta.frame_index} of scene {meta.scene_token} (stamp {meta.timestamp_s:.6f} s) is '
                         f'not later than the one before it ({last_time_s:.6f} s): testing with memory needs time order')


def check_clip(metas: Sequence[FrameMeta]) -> None:
    """Raises ValueError, naming both frames, where a clip's frames are of two scenes or not in time order."""
    there = [meta for meta in metas if meta.frame_valid]
    for before, after in zip(there, there[1:]):
        names = ' and '.join(f'frame {meta.sample_token} (scene {meta.scene_token}, {meta.timestamp_s:.6f} s)'
                             for meta in (before, after))
        if before.scene_token != after.scene_token:
            raise ValueError(f'a clip crosses scenes: {names}')
        if after.timestamp_s <= before.timestamp_s:
            raise ValueError(f'a clip is not in time order: {names}')


def recall(session: Session, firsts: tuple[FrameMeta, ...], fresh: TemporalState) -> TemporalState:
    """The batch's memory: what each scene remembers, or a row of `fresh` where a scene begins.

    Args:
        firsts: each scene's first frame that is not padding.
        fresh: an empty state of B rows.

    Raises:
        ValueError: for a scene that is in the batch twice, and as check_order.
    """
    tokens = [meta.scene_token for meta in firsts]
    twice = [token for token in tokens if tokens.count(token) > 1]
    if twice:
        raise ValueError(f'scene {twice[0]} is in the batch twice: testing with memory takes each scene in one slot '
                         "(batch_sampler=dict(type='SceneBatchSampler'))")
    rows: list[TemporalState] = []
    for index, meta in enumerate(firsts):
        scene = session.streamed(meta.scene_token)
        check_order(meta, scene is not None, None if scene is None else scene.time_s)
        rows.append(fresh.select([index]) if scene is None or meta.is_scene_start else scene.state)
    return type(rows[0]).cat(rows)


def remember(session: Session, steps: Sequence[FrameBatch], state: TemporalState) -> None:
    """Stores each scene's row after these time steps; a scene whose last frame this was is let go."""
    for index, meta in enumerate(steps[-1].metas):
        if meta.is_scene_end:
            session.pop(meta.scene_token, None)
            continue
        stamps = [step.metas[index].timestamp_s for step in steps if step.there[index]]
        before = session.streamed(meta.scene_token)
        known = before.time_s if before is not None and state.ages[index] else None
        row = state if state.batch_size == 1 else state.select([index])
        session[meta.scene_token] = StreamedScene(row, stamps[-1] if stamps else known)


def window_of(histories: list[FrameHistory], device: torch.device) -> tuple[list[FrameBatch], list[SceneFeatures]]:
    """Windows of B scenes, padded in front to the longest: T frame batches and their features, zeros where padding."""
    length = max(len(history.metas) for history in histories)
    metas, features = [], []
    for t in range(length):
        at = [t - (length - len(history.metas)) for history in histories]
        metas.append([replace(h.metas[0], frame_valid=False) if i < 0 else h.metas[i] for h, i in zip(histories, at)])
        features.append(SceneFeatures.cat([h.features[0].blank() if i < 0 else h.features[i] for h, i in zip(histories, at)]))
    return FrameBatch.of_steps(metas, device), features
