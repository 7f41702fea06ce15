"""Spatial: readers. In: a video file or a folder of frames. Out: those frames that are asked for, decoded then, each once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from projects.geometry.frame_sampling.video import frame_paths, is_cut_off

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm')


class VideoFrames(ABC):
    """A video of T frames.

    Attributes:
        name: its path, for errors.
        num_frames: T.
        stamps_s: (T,) float64 seconds, or None where nobody knows.
    """

    name: str
    num_frames: int
    stamps_s: np.ndarray | None = None

    def read(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """(K, H, W, 3) uint8 RGB of frames in the order given; one that is named twice is decoded once.

        Raises:
            ValueError: naming video and frame: there is no such frame, it cannot be decoded, or has another size.
        """
        wanted = [int(index) for index in indices]
        outside = [index for index in wanted if not 0 <= index < self.num_frames]
        if outside or not wanted:
            raise ValueError(f'{self.name} has the frames 0 to {self.num_frames - 1}; asked for {outside or "none"}')
        decoded = dict(self._decoded(sorted(set(wanted))))
        shape = decoded[wanted[0]].shape
        for index, frame in decoded.items():
            if frame.shape != shape:
                raise ValueError(f'{self.name}: frame {index} is {frame.shape[1]} x {frame.shape[0]} pixels, frame {wanted[0]} '
                                 f'{shape[1]} x {shape[0]}: all frames of a video must have one size')
        return np.stack([decoded[index] for index in wanted])

    @abstractmethod
    def _decoded(self, indices: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(index, RGB image) of ascending indices."""


class VideoFile(VideoFrames):
    """A file that OpenCV reads.

    Raises:
        ValueError: naming the file, where it is none, or was cut off.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        capture = self._opened()
        said, rate = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), float(capture.get(cv2.CAP_PROP_FPS))
        capture.set(cv2.CAP_PROP_POS_FRAMES, max(said - 1, 0))
        ends = said > 0 and capture.grab()
        capture.release()
        self.num_frames = said if ends else self._counted()
        if self.num_frames < 1:
            raise ValueError(f'{path} is not a readable video: no frame of it can be decoded (was the file cut off?)')
        if is_cut_off(said, self.num_frames):
            raise ValueError(f'{path} is cut off or damaged: its header says {said} frames, {self.num_frames} can be decoded')
        self.stamps_s = np.arange(self.num_frames) / rate if rate > 0 else None

    def _opened(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self.name)
        if not capture.isOpened():
            raise ValueError(f'{self.name} is not a readable video: OpenCV cannot open it')
        return capture

    def _counted(self) -> int:
        """Frames that can be decoded one after another."""
        capture, number = self._opened(), 0
        while capture.grab():
            number += 1
        capture.release()
        return number

    def _decoded(self, indices: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        capture = self._opened()
        try:
            for index in indices:
                capture.set(cv2.CAP_PROP_POS_FRAMES, index)
                done, image = capture.read()
                if not done:
                    raise ValueError(f'{self.name}: frame {index} of {self.num_frames} cannot be decoded: the file is cut off '
                                     'or damaged')
                yield index, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()


class FrameFolder(VideoFrames):
    """Images in a folder, in the order of the numbers in their names: frame_10000 comes after frame_9999.

    Raises:
        ValueError: naming the folder, where it holds no image.
    """

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self.paths = frame_paths(folder)
        self.num_frames = len(self.paths)

    def _decoded(self, indices: list[int]) -> Iterator[tuple[int, np.ndarray]]:
        for index in indices:
            image = cv2.imread(str(self.paths[index]), cv2.IMREAD_COLOR)
            if image is None:
                raise ValueError(f'{self.paths[index]}: frame {index} of {self.name} is no image that OpenCV can read')
            yield index, cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def open_video(path: str | Path) -> VideoFrames:
    """A video file, or a folder of frames.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: naming it, where it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(2, 'no such video, nor folder of frames', str(path))
    return FrameFolder(path) if path.is_dir() else VideoFile(path)


def find_video(folder: Path, name: str) -> Path:
    """FOLDER/NAME.mp4 (or another suffix of a video), or the folder FOLDER/NAME of frames.

    Raises:
        FileNotFoundError: naming what was looked for.
    """
    for path in (folder / name, *(folder / f'{name}{suffix}' for suffix in VIDEO_SUFFIXES)):
        if path.exists():
            return path
    raise FileNotFoundError(f'no video {folder / name} ({", ".join(VIDEO_SUFFIXES)}), nor a folder of frames of that name')
