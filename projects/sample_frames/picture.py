"""Sampling, pictures. In: a source and the frames chosen of it. Out: RGB: coverage from above, chosen frames, pairs, report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from projects.geometry.frame_sampling import VoxelSets
from projects.memfusion.visualization.style import BACKGROUND, EGO, FAINT, MUTED, PREDICTION, TEXT, TRUTH, Color

from .sources import Source

COVERAGE = LinearSegmentedColormap.from_list('coverage', [(0.45, 0.16, 0.2), (0.2, 0.22, 0.28), (0.12, 0.45, 0.3)])
"""Red is what the choice does not see, green what it sees."""
MOST_IMAGES = 32
IMAGES_IN_A_ROW = 8


def draw_sampling(source: Source, rows: np.ndarray, report: Mapping[str, Any], pool: np.ndarray,
                  images: Mapping[int, np.ndarray], pairs: bool) -> np.ndarray:
    """(H, W, 3) uint8 RGB.

    Args:
        rows: (n,) chosen rows of the source's video, as the sampler gave them.
        pool: (m,) rows that stand for the video.
        images: RGB by frame number; may be empty.
        pairs: whether rows come as a0 p0 a1 p1 ...
    """
    shown = [int(row) for row in rows[:MOST_IMAGES] if int(source.frames[row]) in images]
    image_rows = -(-len(shown) // IMAGES_IN_A_ROW)
    figure = Figure(figsize=(14, 7.5 + 1.5 * image_rows), dpi=90, facecolor=_rgb(BACKGROUND))
    grid = GridSpec(2 + image_rows, IMAGES_IN_A_ROW, figure, height_ratios=[6, 0.7, *[1.3] * image_rows], left=0.05, right=0.98,
                    top=0.94, bottom=0.03, hspace=0.35, wspace=0.06)
    figure.suptitle(source.video.name, color=_rgb(TEXT))
    above, beside = figure.add_subplot(grid[0, :6]), figure.add_subplot(grid[0, 6:])
    above.set_anchor('W')
    _draw_above(figure, above, source, rows, pool, pairs)
    _draw_report(beside, report)
    _draw_time(figure.add_subplot(grid[1, :]), source, rows, pairs)
    for place, row in enumerate(shown):
        axes = figure.add_subplot(grid[2 + place // IMAGES_IN_A_ROW, place % IMAGES_IN_A_ROW])
        frame = int(source.frames[row])
        axes.imshow(images[frame], aspect='auto')
        axes.set_title(f'{frame}', color=_rgb(_color(place, pairs)), fontsize=8, pad=2)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color(_rgb(_color(place, pairs)))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def ground_axes(source: Source) -> np.ndarray:
    """(2, 3): the world's directions that lie to the right and up in a picture from above.

    Where z is not known to point up, what cameras have above them on average is up; without poses z.
    """
    poses = source.video.world_from_cam
    up = np.array([0.0, 0, 1])
    if not source.z_up and poses is not None:
        mean = -poses[:, :3, 1].mean(axis=0)
        up = mean / np.linalg.norm(mean) if np.linalg.norm(mean) > 1e-3 else up
    first = np.array([1.0, 0, 0]) if abs(up[0]) < 0.9 else np.array([0, 1.0, 0])
    right = first - up * (first @ up)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(up, right)])


def _draw_above(figure: Figure, axes: Axes, source: Source, rows: np.ndarray, pool: np.ndarray, pairs: bool) -> None:
    _dark(axes)
    flat, video = ground_axes(source), source.video
    if video.visible is not None:
        asked = np.union1d(pool, rows)
        sets = video.visible(asked)
        if len(sets.keys):
            share, extent = _columns(sets, np.searchsorted(asked, rows), flat)
            seen = axes.imshow(share, extent=extent, origin='lower', cmap=COVERAGE, vmin=0, vmax=1, interpolation='nearest')
            bar = figure.colorbar(seen, cax=axes.inset_axes((1.02, 0, 0.025, 1)))
            bar.set_label('share of what is there that the chosen frames see', color=_rgb(TEXT), fontsize=8)
            bar.ax.tick_params(colors=_rgb(TEXT), labelsize=8)
            _look_at_most(axes, sets.centers_m @ flat.T)
    if video.world_from_cam is None:
        axes.set_title('no poses' + ('' if video.visible is not None else ', and nothing that tells what a frame sees'),
                       color=_rgb(TEXT), fontsize=10)
        if video.visible is None:
            axes.set_xticks([])
            axes.set_yticks([])
        return
    centre = video.world_from_cam[:, :3, 3] @ flat.T
    axes.plot(*centre.T, color=_rgb(MUTED), linewidth=1, label='path')
    # A camera looks along its z axis; a LiDAR, whose z axis points up, along y.
    ahead = video.world_from_cam[:, :3, 1 if source.z_up and _level(video.world_from_cam) else 2] @ flat.T
    for kind, name in enumerate(('anchors', 'partners') if pairs else ('chosen',)):
        chosen = rows[kind::2] if pairs else rows
        color = _rgb(PREDICTION if kind == 0 else EGO)
        axes.quiver(*centre[chosen].T, *ahead[chosen].T, color=color, width=0.005, scale=18, zorder=3)
        axes.plot(*centre[chosen].T, 'o', color=color, markersize=5, label=name, zorder=4)
    if pairs:
        for first, second in rows.reshape(-1, 2):
            axes.plot(*centre[[first, second]].T, color=_rgb(TRUTH), linewidth=2, zorder=2)
    for row in rows[::2] if pairs else rows:
        axes.annotate(str(int(source.frames[row])), centre[row], color=_rgb(TEXT), fontsize=8, xytext=(4, 4),
                      textcoords='offset points', zorder=5)
    axes.set_aspect('equal')
    axes.set_xlabel('metres', color=_rgb(TEXT))
    axes.legend(loc='upper right', fontsize=8, facecolor=_rgb(BACKGROUND), edgecolor=_rgb(FAINT), labelcolor=_rgb(TEXT))


def _look_at_most(axes: Axes, ground: np.ndarray) -> None:
    """Leaves out the farthest hundredth at each side: a LiDAR's lone returns would make the rest small."""
    low, high = np.percentile(ground, [1, 99], axis=0)
    margin = 0.05 * (high - low).max() + 1e-3
    axes.set_xlim(low[0] - margin, high[0] + margin)
    axes.set_ylim(low[1] - margin, high[1] + margin)


def _level(poses: np.ndarray) -> bool:
    """Whether the third axis points up."""
    return bool(poses[:, 2, 2].mean() > 0.7)


def _columns(sets: VoxelSets, rows: np.ndarray, flat: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """Share of the voxels in each column that the frames at `rows` see, NaN where there is none; and its extent in metres."""
    ground = sets.centers_m @ flat.T
    low = ground.min(axis=0) - sets.voxel_m / 2
    cell = np.floor((ground - low) / sets.voxel_m).astype(np.int64)
    shape = tuple(cell.max(axis=0) + 1)
    seen = np.any([np.zeros(len(sets.keys), bool), *(sets.members(int(row)) for row in rows)], axis=0)
    there, covered = (np.bincount(np.ravel_multi_index(tuple(part.T), shape), minlength=shape[0] * shape[1]).reshape(shape)
                      for part in (cell, cell[seen]))
    share = np.where(there > 0, covered / np.maximum(there, 1), np.nan)
    high = low + np.array(shape) * sets.voxel_m
    return share.T, (float(low[0]), float(high[0]), float(low[1]), float(high[1]))


def _draw_report(axes: Axes, report: Mapping[str, Any]) -> None:
    axes.axis('off')
    lines = [f'{key}: {value:.3f}' if isinstance(value, float) else f'{key}: {value}' for key, value in report.items()
             if key not in ('order', 'gains') and value is not None]
    axes.text(0, 1, '\n'.join(lines), color=_rgb(TEXT), fontsize=9, va='top', family='monospace', transform=axes.transAxes)


def _draw_time(axes: Axes, source: Source, rows: np.ndarray, pairs: bool) -> None:
    """The chosen frames along the video."""
    _dark(axes)
    frames = source.frames[rows]
    axes.axhline(0, color=_rgb(FAINT), zorder=1)
    colors = [_rgb(_color(place, pairs)) for place in range(len(frames))]
    axes.scatter(frames, np.zeros(len(frames)), s=18, color=colors, zorder=2)
    axes.set_xlim(-0.5, source.frames[-1] + 0.5)
    axes.set_yticks([])
    axes.set_xlabel('frame', color=_rgb(TEXT), fontsize=8)


def _color(place: int, pairs: bool) -> Color:
    return EGO if pairs and place % 2 else PREDICTION


def _dark(axes: Axes) -> None:
    axes.set_facecolor(_rgb((30, 33, 42)))
    axes.tick_params(colors=_rgb(TEXT), labelsize=8)
    for spine in axes.spines.values():
        spine.set_color(_rgb(FAINT))


def _rgb(color: Color) -> tuple[float, float, float]:
    red, green, blue = (value / 255 for value in color)
    return red, green, blue
