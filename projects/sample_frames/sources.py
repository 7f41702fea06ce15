"""Sampling, sources. In: what stands on the command line. Out: videos and scenes, each opened in its turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from projects.geometry.frame_sampling import Video
from projects.memfusion.runtime.errors import UserError

from .geometry_file import SeeOptions, read_geometry
from .pixels import FrameFiles, Pixels, VideoFile
from .scenes import Scenes

LIST_SUFFIX = '.txt'
ALL = 'all'


@dataclass(frozen=True)
class Source:
    """A video or scene that is open.

    Attributes:
        video: what samplers are told.
        frames: (T,) numbers of the video's rows among all its frames.
        pixels: where frames are decoded; None where there are only numbers.
        z_up: whether the world's z axis is known to point up.
    """

    video: Video
    frames: np.ndarray
    pixels: Pixels | None
    z_up: bool


class Sources:
    """Opens videos, folders of frames, npz files and scenes by name.

    Args:
        see: what stands for what a frame sees.
        geometry: npz file that goes with the one video, or folder with NAME.npz for every video; None looks beside each video.
        root, version: nuScenes-format data set; names are scenes of it where it is given.
    """

    def __init__(self, see: SeeOptions, geometry: Path | None = None, root: Path | None = None,
                 version: str = 'v1.0-mini') -> None:
        self.see, self.geometry = see, geometry
        self.scenes = None if root is None else Scenes(root, version)

    def names(self, words: Sequence[str]) -> list[str]:
        """Videos and scenes that are meant: `all` is every scene, FILE.txt the lines of a file; each once, in order.

        Raises:
            UserError: for `all` without a data set, a list that is empty or no text, or one geometry file for several videos.
            FileNotFoundError: for a list that is not there.
        """
        found: list[str] = []
        for word in words:
            if word == ALL:
                if self.scenes is None:
                    raise UserError('all means every scene of a data set: give --root')
                found += self.scenes.names
            elif word.endswith(LIST_SUFFIX):
                found += _lines(Path(word))
            else:
                found.append(word)
        if not found:
            raise UserError(f'{", ".join(words)}: the list names no video')
        if self.geometry is not None and self.geometry.is_file() and len(found) > 1:
            raise UserError(f'--geometry {self.geometry} is one file for {len(found)} videos: give a folder with NAME.npz for '
                            'each')
        return list(dict.fromkeys(found))

    def open(self, name: str) -> Source:
        """The video or scene of this name.

        Raises:
            ValueError, OSError: naming what cannot be used.
        """
        if self.scenes is not None:
            video, pixels = self.scenes.open(name, self.see)
            return Source(video, np.arange(video.num_frames), pixels, z_up=True)
        path = Path(name)
        if path.suffix == '.npz':
            video, frames = read_geometry(path, self.see)
            return Source(video, np.arange(video.num_frames) if frames is None else frames, None, z_up=False)
        if not path.exists():
            raise FileNotFoundError(2, 'no such video or folder (scenes of a nuScenes data set need --root)', name)
        opened = FrameFiles.of_folder(path) if path.is_dir() else VideoFile(path)
        return self._with_geometry(name, path, opened)

    def _with_geometry(self, name: str, path: Path, pixels: FrameFiles | VideoFile) -> Source:
        number = pixels.num_frames
        file = self._geometry_of(path)
        if file is None:
            stamps_s = pixels.stamps_s if isinstance(pixels, VideoFile) else None
            return Source(Video(number, name, stamps_s), np.arange(number), pixels, z_up=False)
        video, frames = read_geometry(file, self.see)
        if frames is None and video.num_frames != number:
            raise ValueError(f'{name} has {number} frames, but {file} has {video.num_frames} rows: `frames` must say which '
                             'frames of the video they are')
        if frames is not None and int(frames[-1]) >= number:
            raise ValueError(f'{file}: frames names frame {int(frames[-1])}, but {name} has {number} frames')
        return Source(replace(video, name=name), np.arange(number) if frames is None else frames, pixels, z_up=False)

    def _geometry_of(self, path: Path) -> Path | None:
        if self.geometry is None:
            beside = path.with_name(f'{path.stem if path.is_file() else path.name}.npz')
            return beside if beside.is_file() else None
        file = self.geometry / f'{path.stem if path.is_file() else path.name}.npz' if self.geometry.is_dir() else self.geometry
        if not file.is_file():
            raise FileNotFoundError(2, 'no geometry of this video', str(file))
        return file


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is no list of videos in UTF-8, one a line: {error}') from error
    return [line.strip() for line in text.splitlines() if line.strip()]
