"""Sampling, pixels. In: a video file or a folder of frames. Out: how many frames there are, and those that are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from projects.geometry.frame_sampling.video import frame_paths, is_cut_off
from projects.memfusion.visualization.image_files import read_rgb

Images = dict[int, np.ndarray]


class Pixels(Protocol):
    """Where the frames of a video are decoded, when they are asked for.

    Attributes:
        names: what each frame is called where it is a file or a sample of its own; empty where it is not.
    """

    names: Sequence[str]

    def read(self, frames: Sequence[int]) -> Images:
        """{frame: (H, W, 3) uint8 RGB}."""


class VideoFile:
    """A video that OpenCV reads; only the frames that are asked for are decoded.

    Raises:
        ValueError: it is no video, has no frames, or far fewer than its header says, named by its path.
    """

    names: Sequence[str] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        capture = self._open()
        said, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), float(capture.get(cv2.CAP_PROP_FPS))
        capture.set(cv2.CAP_PROP_POS_FRAMES, max(said - 1, 0))
        ends = said > 0 and capture.grab()
        capture.release()
        self.num_frames = said if ends else self._count()
        if self.num_frames < 1:
            raise ValueError(f'{path} is not a readable video: no frame of it can be decoded')
        if is_cut_off(said, self.num_frames):
            raise ValueError(f'{path} is cut or damaged: its header says {said} frames, {self.num_frames} can be decoded')
        self.stamps_s = np.arange(self.num_frames) / rate if rate > 0 else None

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self.path))
        if not capture.isOpened():
            raise ValueError(f'{self.path} is not a readable video: OpenCV cannot open it')
        return capture

    def _count(self) -> int:
        """Frames that can be decoded one after another."""
        capture, number = self._open(), 0
        while capture.grab():
            number += 1
        capture.release()
        return number

    def read(self, frames: Sequence[int]) -> Images:
        """See Pixels; ValueError where a frame cannot be decoded: the file is cut, or its header counts frames it lacks."""
        capture, found = self._open(), {}
        try:
            for frame in sorted(frames):
                capture.set(cv2.CAP_PROP_POS_FRAMES, frame)
                done, image = capture.read()
                if not done:
                    raise ValueError(f'{self.path}: frame {frame} of {self.num_frames} cannot be decoded: the file is cut or '
                                     'damaged')
                found[frame] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()
        return found


class FrameFiles:
    """Images that are the frames of a video.

    Args:
        paths: one for each frame.
        names: what they are called in the results; None is their file names.
    """

    def __init__(self, paths: Sequence[Path], names: Sequence[str] | None = None) -> None:
        self.paths, self.num_frames = paths, len(paths)
        self.names = [path.name for path in paths] if names is None else names

    @classmethod
    def of_folder(cls, folder: Path) -> FrameFiles:
        """The images of a folder, by the numbers in their names: frame_10000 comes after frame_9999.

        Raises:
            ValueError: it holds none.
        """
        return cls(frame_paths(folder))

    def read(self, frames: Sequence[int]) -> Images:
        """See Pixels; OSError, naming the file, where one is no image."""
        return {frame: read_rgb(self.paths[frame]) for frame in frames}
