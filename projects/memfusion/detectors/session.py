"""Streaming. In: the session {scene_token: MemoryState of one scene} and a time step. Out: a batched state, and back."""

from __future__ import annotations

from projects.memfusion.structures import FrameBatch, MemoryState

Session = dict[str, MemoryState]


def recall(session: Session, frames: FrameBatch, fresh: MemoryState) -> MemoryState:
    """The batch's memory: what each scene remembers, or a row of `fresh` where a scene begins.

    Raises:
        ValueError: naming scene and frame, where a frame comes without its history or out of time order.
    """
    rows = []
    for index, meta in enumerate(frames.metas):
        state = session.get(meta.scene_token)
        if meta.is_scene_start or state is None:
            if not meta.is_scene_start:
                raise ValueError(
                    f'frame {meta.frame_index} of scene {meta.scene_token} came without the frames before it: '
                    "streaming needs time order (sampler=dict(type='SceneSampler'), "
                    "batch_sampler=dict(type='SceneBatchSampler'))")
            state = fresh.select([index])
        elif meta.timestamp_s <= float(state.time_s):
            raise ValueError(f'frame {meta.frame_index} of scene {meta.scene_token} (stamp {meta.timestamp_s:.6f} s) is '
                             f'not later than the one before it ({float(state.time_s):.6f} s): streaming needs time order')
        rows.append(state)
    return MemoryState.cat(rows)


def remember(session: Session, frames: FrameBatch, memory: MemoryState) -> None:
    """Stores each scene's row; a scene whose last frame this was is let go."""
    for index, meta in enumerate(frames.metas):
        if meta.is_scene_end:
            session.pop(meta.scene_token, None)
        else:
            session[meta.scene_token] = memory.select([index])
