"""Spatial: made rooms. In: a room. Out: a sheet: the room from above with its cameras, the video's frames, some questions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from projects.spatial_mllm.rooms.furniture import CATEGORIES
from projects.spatial_mllm.rooms.generate import make_room
from projects.spatial_mllm.rooms.layout import corners
from projects.spatial_mllm.rooms.scene import Scene
from projects.spatial_mllm.rooms.settings import RoomSettings

_COLUMNS = 4
_RANGE_M = 0.9
_SHOWN = 16


def draw_sheet(settings: RoomSettings, split: str, index: int, folder: Path) -> Path:
    """Writes FOLDER/ROOM.png and gives its path."""
    scene, asked, situated = make_room(settings, split, index)
    rows = -(-len(scene.frames) // _COLUMNS)
    figure = Figure(figsize=(13, 5.2 + 1.6 * max(0, rows - 2)), layout='constrained')
    grid = figure.add_gridspec(rows, 3 + _COLUMNS)
    _plan(figure.add_subplot(grid[:, :3]), scene, settings.view_deg)
    for number, frame in enumerate(scene.frames):
        axes = figure.add_subplot(grid[number // _COLUMNS, 3 + number % _COLUMNS])
        axes.imshow(frame)
        axes.set_title(f'frame {number}', fontsize=8)
        axes.axis('off')
    questions = [*asked[:_SHOWN - _SHOWN // 3], *situated[:_SHOWN // 3]]
    figure.suptitle('\n'.join(f'{one.kind}: {one.text}  [{one.answer}]' for one in questions), fontsize=7, x=0.01, ha='left')
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{scene.name}.png'
    figure.savefig(path, dpi=110)
    return path


def _plan(axes: Axes, scene: Scene, view_deg: float) -> None:
    width, depth = scene.size[:2]
    axes.add_patch(Rectangle((-width / 2, -depth / 2), width, depth, fill=False, linewidth=2))
    for foot, kind, centre in zip(corners(scene.pieces), scene.category, scene.pieces.centre):
        axes.add_patch(Polygon(foot, facecolor=np.array(CATEGORIES[kind].colour) / 255, edgecolor='black'))
        axes.annotate(CATEGORIES[kind].name, centre, (0, 9), textcoords='offset points', ha='center', fontsize=7)
    half = np.radians(view_deg) / 2
    for number, pose in enumerate(scene.cameras.world_from_cam):
        spot, yaw = pose[:2, 3], np.arctan2(pose[1, 2], pose[0, 2])
        ends = [spot + _RANGE_M * np.array([np.cos(angle), np.sin(angle)]) for angle in (yaw - half, yaw + half)]
        axes.add_patch(Polygon([spot, *ends], alpha=0.25, color='red' if number == 0 else 'grey'))
        axes.annotate(str(number), spot + _RANGE_M * np.array([np.cos(yaw), np.sin(yaw)]), ha='center', va='center', fontsize=8)
    axes.set_xlim(-width / 2 - 0.1, width / 2 + 0.1)
    axes.set_ylim(-depth / 2 - 0.1, depth / 2 + 0.1)
    axes.set_aspect('equal')
    axes.set_title(f'{scene.name}: {scene.area_m2:g} m2, {len(scene.category)} pieces, metres', fontsize=9)
