"""Report. In: tables, curves. Out: plots as SVG, in one style; text stays text, so that it can be searched."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from .markdown import Table

_NUMBER = re.compile(r'([+-]?\d+(?:\.\d+)?)(?:\s*±\s*(\d+(?:\.\d+)?))?%?')
_MOST_COLUMNS, _MOST_ROWS = 6, 24


def plot_table(table: Table, title: str) -> bytes | None:
    """Bars of a table's numeric columns, one panel a column, rows from top to bottom, with what stands after ±.

    Columns of one value are left out; None where none is left: there is nothing to compare. Columns that are called alike up to
    a comma (`AP, trained` and `AP, untrained`) have one scale.
    """
    columns = {}
    for number, head in enumerate(table.heads):
        cells = [_NUMBER.fullmatch(row[number]) if number < len(row) else None for row in table.rows]
        if number and len({cell[1] for cell in cells if cell is not None}) >= 2:
            columns[number, head] = cells
    shown = dict(list(columns.items())[:_MOST_COLUMNS])
    if not shown or len(table.rows) > _MOST_ROWS:
        return None
    texts = next(iter(shown))[0]  # what stands before the first number names the row
    names = [', '.join(row[:texts])[:60] for row in table.rows]
    figure = Figure(figsize=(2.6 + 2.2 * len(shown), 0.9 + 0.3 * len(names)), layout='constrained')
    figure.suptitle(title, fontsize=10)
    scales: dict[str, Axes] = {}
    for axis, ((_, head), cells) in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown.items()):
        there = [place for place, cell in enumerate(cells) if cell is not None]
        values = [float(cell[1]) for cell in cells if cell is not None]
        spread = [float(cell[2] or 0) for cell in cells if cell is not None]
        like = scales.setdefault(head.partition(',')[0], axis)
        if like is not axis:
            axis.sharex(like)
        axis.barh(there, values, xerr=spread if any(spread) else None, color='#3b7dd8', ecolor='#333333', capsize=2)
        axis.set_xlabel(_plain(head), fontsize=9)
        axis.grid(axis='x', alpha=0.3)
    _first_axis(figure).set_yticks(range(len(names)), [_plain(name) for name in names], fontsize=8)
    _first_axis(figure).invert_yaxis()
    return svg_of(figure)


def plot_curves(curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str, x_name: str) -> bytes | None:
    """Lines by name over one axis; None where there are none."""
    if not curves:
        return None
    figure = Figure(figsize=(8, 3.2), layout='constrained')
    axis = figure.subplots()
    for name, (x, y) in curves.items():
        axis.plot(x, y, label=_plain(name), linewidth=1.2)
    axis.set_title(title, fontsize=10)
    axis.set_xlabel(x_name)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    return svg_of(figure)


def svg_of(figure: Figure) -> bytes:
    """The figure as SVG without the time it was made, so that equal results give equal files."""
    buffer = io.BytesIO()
    with rc_context({'svg.fonttype': 'none', 'svg.hashsalt': 'memfusion'}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata=dict(Date=None))
    return buffer.getvalue()


def _first_axis(figure: Figure) -> Axes:
    return figure.axes[0]


def _plain(text: str) -> str:
    """Matplotlib reads text between dollars as mathematics."""
    return text.replace('`', '').replace('$', r'\$')
