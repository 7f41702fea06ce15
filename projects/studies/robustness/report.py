"""Study. In: scores by condition. Out: a verdict, a break-even per fault, tables (Markdown) and curves (picture)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .conditions import CLEAN, Condition
from .run import SCORES, Scores, gains

MARGIN = 0.5
"""mAP points that count: less is noise."""
AXES = dict(rotation_deg=('rotation error', 'deg'), translation_m=('translation error', 'm'),
            time_offset_s=('time offset', 's'), cameras_dropped=('cameras dropped', 'of the rig'),
            lidar_dropped=('LiDAR frames dropped', 'share'))
NO_FLOOR = ('lidar_dropped',)
"""Faults that LiDAR alone suffers as well, so that its clean score is nothing to compare with."""


@dataclass(frozen=True)
class Verdict:
    """used: whether the detector looks at its images at all; lines: what was found, for people."""

    used: bool
    lines: tuple[str, ...]


def _measured(conditions: Sequence[Condition]) -> dict[str, tuple[str, str]]:
    groups = {condition.group for condition in conditions}
    return {group: text for group, text in AXES.items() if group in groups}


def curve(conditions: Sequence[Condition], scores: Mapping[str, Scores], group: str,
          score: str) -> tuple[list[float], list[float]]:
    """Levels and scores of one fault, from no fault on."""
    points = [(0.0, scores[CLEAN][score])] + [(c.level, scores[c.name][score]) for c in conditions if c.group == group]
    return [level for level, _ in points], [value for _, value in points]


def break_even(levels: Sequence[float], values: Sequence[float], floor: float) -> float | None:
    """The level at which a falling curve first reaches `floor`, linear in between; 0 where it starts there, None never."""
    if values[0] <= floor:
        return 0.0
    for (a, high), (b, low) in zip(zip(levels, values), zip(levels[1:], values[1:])):
        if low <= floor:
            return float(a + (b - a) * (high - floor) / (high - low))
    return None


def judge(scores: Mapping[str, Scores], lidar_only: Scores | None) -> Verdict:
    """Whether the images are used, and whether the detector does without them as well as one that never had any."""
    gain = gains(scores)
    used = gain['other_scene'] > MARGIN
    lines = [f'true images score {scores[CLEAN]["mAP"]:.1f} mAP, {gain["other_scene"]:+.1f} over images of another scene, '
             f'{gain["blank"]:+.1f} over blank ones, {gain["masked"]:+.1f} over none: the cameras are '
             f'{"used" if used else "NOT used"}']
    if lidar_only is not None:
        short = scores['images masked']['mAP'] - lidar_only['mAP']
        lines.append(f'without images it is {short:+.1f} mAP to the LiDAR-only detector: '
                     f'{"no worse" if short > -MARGIN else "WORSE than having no cameras at all"}')
    return Verdict(used, tuple(lines))


def floor_of(scores: Mapping[str, Scores], lidar_only: Scores | None) -> tuple[Scores, str]:
    """What a fault is compared with, and its name."""
    return (scores['images masked'], 'all cameras masked') if lidar_only is None else (lidar_only, 'LiDAR-only detector')


def summary_of(conditions: Sequence[Condition], scores: Mapping[str, Scores], lidar_only: Scores | None) -> dict[str, Any]:
    """What tables and curves say, for programs: used, lines, gains (mAP), floor, break_even by fault (None: not
    reached; faults of NO_FLOOR have none)."""
    (floor, name), verdict = floor_of(scores, lidar_only), judge(scores, lidar_only)
    levels = {group: {score: break_even(*curve(conditions, scores, group, score), floor[score]) for score in SCORES}
              for group in _measured(conditions) if group not in NO_FLOOR}
    return dict(used=verdict.used, lines=list(verdict.lines), gains=gains(scores), floor=dict(name=name, **floor),
                break_even=levels)


def write_markdown(path: Path, title: str, conditions: Sequence[Condition], scores: Mapping[str, Scores],
                   lidar_only: Scores | None) -> None:
    """The verdict, the break-evens and every condition's scores."""
    summary = summary_of(conditions, scores, lidar_only)
    lines, floor = [f'# Robustness of {title}', '', *[f'- {line}' for line in summary['lines']]], summary['floor']
    for group, levels in summary['break_even'].items():
        what, unit = AXES[group]
        said = [f'{score} ({floor[score]:.1f}) ' + ('not reached' if level is None else f'at {level:.3g} {unit}')
                for score, level in levels.items()]
        lines.append(f'- break-even of {what} with the {floor["name"]}: {", ".join(said)}')
    lines += ['', '| condition | mAP | NDS | mAP to clean |', '|---|---|---|---|']
    for condition in conditions:
        one = scores[condition.name]
        lines.append(f'| {condition.name} | {one["mAP"]:.1f} | {one["NDS"]:.1f} | {one["mAP"] - scores[CLEAN]["mAP"]:+.1f} |')
    if lidar_only is not None:
        lines.append(f'| LiDAR-only detector | {lidar_only["mAP"]:.1f} | {lidar_only["NDS"]:.1f} | '
                     f'{lidar_only["mAP"] - scores[CLEAN]["mAP"]:+.1f} |')
    path.write_text('\n'.join(lines) + '\n')


def draw(path: Path, title: str, conditions: Sequence[Condition], scores: Mapping[str, Scores],
         lidar_only: Scores | None) -> None:
    """Curves of mAP and NDS against each fault, with the floor and the break-even; PNG."""
    floor, name = floor_of(scores, lidar_only)
    figure = Figure(figsize=(16, 6), dpi=100, layout='constrained')
    figure.suptitle(f'{title}: {judge(scores, lidar_only).lines[0]}', fontsize=10)
    measured = _measured(conditions)
    rows = figure.subplots(2, max(len(measured), 1), sharey='row', squeeze=False)
    for axes, score in zip(rows, ('mAP', 'NDS')):
        for axis, (group, (what, unit)) in zip(axes, measured.items()):
            levels, values = curve(conditions, scores, group, score)
            axis.plot(levels, values, 'o-', label='this detector')
            if group not in NO_FLOOR:
                axis.axhline(floor[score], linestyle='--', color='grey', label=name)
                level = break_even(levels, values, floor[score])
                if level is not None:
                    axis.axvline(level, linestyle=':', color='tab:red', label=f'break-even {level:.3g}')
            axis.set_xlabel(f'{what} ({unit})')
            axis.grid(alpha=0.3)
            axis.legend(fontsize=7)
        axes[0].set_ylabel(f'{score} (%)')
    FigureCanvasAgg(figure).print_png(str(path))
