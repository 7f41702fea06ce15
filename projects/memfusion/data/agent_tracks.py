"""Stage data: past and future of the agents to be predicted. In: the devkit's helper, tokens. Out: arrays, global frame.

Everything that follows tokens through the tables happens here, once; an item of a data set picks rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from nuscenes.eval.common.utils import quaternion_yaw
from nuscenes.prediction import PredictHelper
from pyquaternion import Quaternion
from tqdm import tqdm

from projects.memfusion.structures.agents import FUTURE_STEPS

from .errors import DataError

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
STEP_S = 0.5


@dataclass(frozen=True)
class AgentTracks:
    """N agents, H frames of history, oldest first; what is not there is 0 and not valid.

    Attributes:
        tokens: `instance_sample` of each.
        center: (N, H, 3) metres, global frame, middle of the box.
        size: (N, H, 3) length, width, height in metres.
        yaw: (N, H) rad, global frame.
        motion: (N, H, 3) speed (m/s), acceleration (m/s^2) and yaw rate (rad/s) as the devkit computes them, its NaN being 0.
            In frames before the last, what would need labels from before the history is 0, too.
        history_valid: (N, H).
        future: (N, 12, 2) metres, global frame.
        future_valid: (N, 12).
    """

    tokens: tuple[str, ...]
    center: Floats
    size: Floats
    yaw: Floats
    motion: Floats
    history_valid: Bools
    future: Floats
    future_valid: Bools

    def rows(self, rows: Sequence[int]) -> AgentTracks:
        """Some of the agents."""
        picked: dict[str, Any] = {
            field.name: getattr(self, field.name)[list(rows)] for field in fields(self) if field.name != 'tokens'}
        return replace(self, tokens=tuple(self.tokens[row] for row in rows), **picked)


def build_tracks(helper: PredictHelper, tokens: Sequence[str], num_frames: int, progress: bool = True) -> AgentTracks:
    """Past and future of every token.

    Args:
        helper: of the data set.
        tokens: `instance_sample`.
        num_frames: H, the present frame included.
        progress: show a bar.

    Raises:
        DataError: naming the token, for one of another form or without an annotation in the tables.
    """
    count = len(tokens)
    tracks = AgentTracks(
        tuple(tokens), np.zeros((count, num_frames, 3)), np.zeros((count, num_frames, 3)), np.zeros((count, num_frames)),
        np.zeros((count, num_frames, 3)), np.zeros((count, num_frames), dtype=bool), np.zeros((count, FUTURE_STEPS, 2)),
        np.zeros((count, FUTURE_STEPS), dtype=bool))
    reader = _Reader(helper, num_frames)
    for row, token in enumerate(tqdm(tokens, desc='agents to be predicted', unit='agent', disable=not progress)):
        reader.fill(tracks, row, token)
    return tracks


class _Reader:
    """Follows tokens through the tables; motion of an annotation, which several tokens share, is computed once."""

    def __init__(self, helper: PredictHelper, num_frames: int) -> None:
        self.helper, self.num_frames = helper, num_frames
        self._motion: dict[str, tuple[float, float, float]] = {}

    def fill(self, tracks: AgentTracks, row: int, token: str) -> None:
        """Write one row."""
        instance, _, sample = token.partition('_')
        where = f'{self.helper.data.dataroot}/{self.helper.data.version}'
        if not instance or not sample or '_' in sample:
            raise DataError(f'token {token!r} is not instance_sample')
        if (sample, instance) not in self.helper.inst_sample_to_ann:
            raise DataError(f'token {token}: {where} has no annotation of instance {instance} in sample {sample}; are the '
                            'split file and the tables of one data set?')
        present = self.helper.get_sample_annotation(instance, sample)
        frame_of = self._frames_before(sample)
        past = []
        if self.num_frames > 1:
            seconds = (self.num_frames - 1) * STEP_S
            past = self.helper.get_past_for_agent(instance, sample, seconds, in_agent_frame=False, just_xy=False)
        seen = {record['sample_token'] for record in (present, *past)} & set(frame_of)
        for record in (present, *past):  # newest first, as the devkit gives them
            frame = frame_of.get(record['sample_token'])
            if frame is None:  # labels have a gap, so that the devkit's count of four reaches further back
                continue
            width, length, height = record['size']
            tracks.center[row, frame] = record['translation']
            tracks.size[row, frame] = length, width, height
            tracks.yaw[row, frame] = quaternion_yaw(Quaternion(record['rotation']))
            tracks.motion[row, frame] = self._motion_within(record, seen if frame < self.num_frames - 1 else None)
            tracks.history_valid[row, frame] = True
        future = self.helper.get_future_for_agent(instance, sample, FUTURE_STEPS * STEP_S, in_agent_frame=False)
        tracks.future[row, :len(future)] = future.reshape(-1, 2)
        tracks.future_valid[row, :len(future)] = True

    def _frames_before(self, sample: str) -> dict[str, int]:
        """Frame of each sample of the clip that ends here; a chain of samples never leaves its scene."""
        frames, frame = {}, self.num_frames - 1
        while sample and frame >= 0:
            frames[sample] = frame
            sample, frame = self.helper.data.get('sample', sample)['prev'], frame - 1
        return frames

    def _motion_within(self, record: dict[str, Any], seen: set[str] | None) -> tuple[float, float, float]:
        """Speed, acceleration and yaw rate of an annotation from what was seen (None: no matter what)."""
        if record['token'] not in self._motion:
            where = record['instance_token'], record['sample_token']
            values = (self.helper.get_velocity_for_agent(*where), self.helper.get_acceleration_for_agent(*where),
                      self.helper.get_heading_change_rate_for_agent(*where))
            self._motion[record['token']] = (_number(values[0]), _number(values[1]), _number(values[2]))
        speed, acceleration, yaw_rate = self._motion[record['token']]
        if seen is None:
            return speed, acceleration, yaw_rate
        before = self._previous(record, seen)
        if before is None:
            return 0.0, 0.0, 0.0
        return speed, 0.0 if self._previous(before, seen) is None else acceleration, yaw_rate

    def _previous(self, record: dict[str, Any], seen: set[str]) -> dict[str, Any] | None:
        before = self.helper.data.get('sample_annotation', record['prev']) if record['prev'] else None
        return before if before is not None and before['sample_token'] in seen else None


def _number(value: float) -> float:
    """The devkit's physics models take NaN (no label before, or too long ago) as 0."""
    return 0.0 if np.isnan(value) else float(value)
