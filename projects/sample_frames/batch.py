"""Sampling, batches. In: sources, a sampler. Out: one JSON file, written after every video; what fails is named and counted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from projects.geometry.frame_sampling import FrameSampler
from projects.memfusion.data.files import write_text
from projects.memfusion.runtime.errors import UserError, explain
from projects.memfusion.visualization.image_files import write_png

from .picture import draw_sampling
from .sources import Source, Sources

MOST_BYTES = 200
"""Of a picture's name: file systems take 255."""


@dataclass(frozen=True)
class Results:
    """What the JSON file holds.

    Attributes:
        settings: of the run; a file is only gone on with where they are the same.
        videos: name -> `indices`, `names` of the frames where they have any, `num_frames`, `report`.
        failed: name -> why.
    """

    settings: dict[str, Any]
    videos: dict[str, dict[str, Any]]
    failed: dict[str, str]

    @classmethod
    def load(cls, path: Path, settings: dict[str, Any]) -> Results:
        """The results that are there, to go on with; what failed is tried again.

        Raises:
            UserError: the file is no result of this tool, or of other settings.
        """
        if not path.exists():
            return cls(settings, {}, {})
        try:
            found = json.loads(path.read_text())
            made_with, videos = found['settings'], found['videos']
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f'{path} is there, and is no result of this tool ({error}): give another --out') from error
        if made_with != settings:
            differ = sorted(key for key in {*made_with, *settings} if made_with.get(key) != settings.get(key))
            raise UserError(f'{path} was made with other settings ({", ".join(differ)}): give another --out, or remove it')
        return cls(settings, videos, {})

    def save(self, path: Path) -> None:
        """Writes the file whole."""
        write_text(path, json.dumps(vars(self), indent=1) + '\n')


def sample_all(names: Sequence[str], sources: Sources, sampler: FrameSampler, out: Path, settings: dict[str, Any],
               pictures: Path | None = None, say: Callable[[str], None] = print) -> Results:
    """Samples every video that `out` does not hold yet. One that fails is named and counted, and the others are done.

    Args:
        names: of videos or scenes.
        settings: what decides the results, to be kept with them.
        pictures: folder for NAME.png; None draws none.
        say: takes lines of progress.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    results = Results.load(out, settings)
    drawn = {} if pictures is None else {name: pictures / f'{stem}.png' for name, stem in zip(names, plain_names(names))}
    for number, name in enumerate(names, start=1):
        head = f'[{number}/{len(names)}] {name}'
        if name in results.videos:
            say(f'{head}: done before')
            continue
        start = time.perf_counter()
        try:
            source = sources.open(name)
            results.videos[name] = sample_one(source, sampler, drawn.get(name))
            say(f'{head}: {_line(results.videos[name])}, {time.perf_counter() - start:.1f} s')
        except Exception as error:  # whatever one video is like, the others are done
            results.failed[name] = explain(error) or f'{type(error).__name__}: {error}'
            say(f'{head}: FAILED: {results.failed[name]}')
        results.save(out)
    return results


def sample_one(source: Source, sampler: FrameSampler, picture: Path | None = None) -> dict[str, Any]:
    """One video's entry of the results. The chosen frames are decoded, so that a cut file is noticed."""
    rows, report = sampler(source.video)
    frames = source.frames[rows]
    images = {} if source.pixels is None else source.pixels.read(np.unique(frames).tolist())
    entry: dict[str, Any] = dict(indices=frames.tolist())
    if source.pixels is not None and source.pixels.names:
        entry['names'] = [source.pixels.names[frame] for frame in frames]
    entry |= dict(num_frames=source.video.num_frames, report=report)
    if picture is not None:
        write_png(picture, draw_sampling(source, rows, report, sampler.pool_of(source.video), images, sampler.pairs))
    return entry


def plain_names(names: Sequence[str]) -> list[str]:
    """A file name for each video's name: folders become part of it, its end is what stays of a long one, each is there once."""
    found: dict[str, None] = {}
    for name in names:
        letters = ''.join(letter if letter.isalnum() or letter in '-_.' else '_' for letter in name).strip('_.') or 'video'
        end = letters.encode()[-MOST_BYTES:].decode(errors='ignore')
        found[next(stem for stem in chain([end], (f'{end}-{number}' for number in count(2))) if stem not in found)] = None
    return list(found)


def _line(entry: dict[str, Any]) -> str:
    report = entry['report']
    coverage = report.get('coverage')
    return f'{report["returned"]} of {entry["num_frames"]} frames' + ('' if coverage is None else f', coverage {coverage:.3f}')
