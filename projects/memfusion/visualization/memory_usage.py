"""Pictures. In: how full and how used a memory was after each frame of a scene. Out: an RGB chart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .style import BACKGROUND, EGO, FAINT, MUTED, PREDICTION, TEXT, Color

NOT_COUNTED = 'usage is not counted: only long-term memory needs it (model.temporal.long_term is off)'


@dataclass(frozen=True)
class MemoryUsage:
    """One scene's memory after one frame.

    Attributes:
        frame: number of the frame in the scene.
        working, long_term: elements that may answer.
        working_cap, long_term_cap: how many there can be; 0 is no long-term memory.
        filled_bytes: what these elements occupy.
        held_bytes: what the whole state occupies, whether filled or not.
        slot_usage: (F,) mean affinity that an element of a slot got per read, newest slot first; NaN where the slot is empty
            or was not read yet. None where usage is not counted.
        long_usage: the same of long-term memory's elements; NaN where there are none that were read.
    """

    frame: int
    working: int
    long_term: int
    working_cap: int
    long_term_cap: int
    filled_bytes: int
    held_bytes: int
    slot_usage: np.ndarray | None
    long_usage: float


def draw_memory_usage(usage: Sequence[MemoryUsage], title: str = '') -> np.ndarray:
    """(H, 1200, 3) uint8 RGB: elements and their caps, bytes, and usage by age, over the frames of a scene."""
    canvas = FigureCanvasAgg(memory_usage_figure(usage, title))
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def memory_usage_figure(usage: Sequence[MemoryUsage], title: str = '') -> Figure:
    """The chart as a matplotlib figure of three parts: elements, bytes, usage.

    Raises:
        ValueError: where there is no frame.
    """
    if not usage:
        raise ValueError('a chart of memory usage needs at least one frame')
    heights = [4, 2.5, 0.8 if any(one.slot_usage is None for one in usage) else 3.5]  # inches
    figure = Figure(figsize=(12, sum(heights)), dpi=100, facecolor=_rgb(BACKGROUND), layout='constrained')
    figure.suptitle(title, color=_rgb(TEXT))
    elements, held, used = figure.subplots(3, 1, height_ratios=heights)
    for axes in (elements, held, used):
        _dark(axes)
        axes.set_xlim(usage[0].frame - 0.6, usage[-1].frame + 0.6)
        axes.xaxis.get_major_locator().set_params(integer=True)
    _draw_elements(elements, usage)
    _draw_bytes(held, usage)
    _draw_usage(figure, used, usage)
    used.set_xlabel('frame')
    return figure


def _draw_elements(axes: Axes, usage: Sequence[MemoryUsage]) -> None:
    frames = [one.frame for one in usage]
    working = np.array([one.working for one in usage])
    cap, long_cap = usage[-1].working_cap, usage[-1].long_term_cap
    axes.bar(frames, working, color=_rgb(PREDICTION), width=0.8, label='working memory')
    axes.axhline(cap, color=_rgb(PREDICTION), linestyle='--', label=f'cap of working memory: {cap}')
    if long_cap:
        axes.bar(frames, [one.long_term for one in usage], bottom=working, color=_rgb(EGO), width=0.8, label='long-term memory')
        axes.axhline(cap + long_cap, color=_rgb(EGO), linestyle='--', label=f'with cap of long-term memory: {cap} + {long_cap}')
    axes.set_ylabel('elements held')
    axes.set_ylim(0, 1.35 * (cap + long_cap))  # room for the legend
    _legend(axes)


def _draw_bytes(axes: Axes, usage: Sequence[MemoryUsage]) -> None:
    frames = [one.frame for one in usage]
    mib = 2.0 ** -20
    held = [one.held_bytes * mib for one in usage]
    name = 'whole state (constant)' if len(set(held)) == 1 else 'whole state'
    axes.bar(frames, [one.filled_bytes * mib for one in usage], color=_rgb(MUTED), width=0.8, label='filled elements')
    axes.plot(frames, held, color=_rgb(TEXT), marker='.', label=name)
    axes.set_ylabel('MiB per scene')
    axes.set_ylim(0, 1.45 * max(held))
    _legend(axes)


def _draw_usage(figure: Figure, axes: Axes, usage: Sequence[MemoryUsage]) -> None:
    """Rows: slots by age, newest on top, and long-term memory below; columns: frames; colour: affinity per element and read.

    Ages that never have a number are left out: with mem_every=1 the newest slot has not been read yet in any frame.
    """
    slots = [one.slot_usage for one in usage]
    counted = [slot for slot in slots if slot is not None]
    if len(counted) < len(slots):
        axes.set_yticks([])
        axes.text(0.5, 0.5, NOT_COUNTED, color=_rgb(TEXT), ha='center', va='center', transform=axes.transAxes)
        return
    table = np.stack([np.append(slot, one.long_usage) for slot, one in zip(counted, usage)], axis=1)
    ages = ['newest slot', *[f'slot of age {age}' for age in range(1, len(table) - 1)], 'long-term']
    shown = np.isfinite(table).any(axis=1)
    shown[-1] = True
    table, ages = table[shown], [age for age, kept in zip(ages, shown) if kept]
    edges = (usage[0].frame - 0.5, usage[-1].frame + 0.5, len(table) - 0.5, -0.5)
    high = np.nanmax(table) if np.isfinite(table).any() else 1.0
    heat = axes.imshow(table, extent=edges, aspect='auto', cmap='inferno', vmin=0, vmax=high, interpolation='nearest')
    axes.set_yticks(range(len(table)), ages)
    axes.set_title('usage since written; empty: holds nothing, or not read yet', color=_rgb(TEXT), fontsize=10)
    bar = figure.colorbar(heat, ax=axes, pad=0.01)
    bar.set_label('affinity per element and read', color=_rgb(TEXT))
    bar.ax.tick_params(colors=_rgb(TEXT))


def _dark(axes: Axes) -> None:
    axes.set_facecolor(_rgb((30, 33, 42)))
    axes.tick_params(colors=_rgb(TEXT))
    axes.yaxis.label.set_color(_rgb(TEXT))
    axes.xaxis.label.set_color(_rgb(TEXT))
    for spine in axes.spines.values():
        spine.set_color(_rgb(FAINT))


def _legend(axes: Axes) -> None:
    axes.legend(loc='upper left', ncols=2, fontsize=9, facecolor=_rgb(BACKGROUND), edgecolor=_rgb(FAINT), labelcolor=_rgb(TEXT))


def _rgb(color: Color) -> tuple[float, float, float]:
    red, green, blue = (value / 255 for value in color)
    return red, green, blue
