"""Demo, two result files side by side. In: submissions, their data. Out: tables of who found what, pictures of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.spatial.transform import Rotation

from projects.memfusion.data.nuscenes_tables import read_table
from projects.memfusion.data.transforms.loading import lidar_pose
from projects.memfusion.metrics.bicycle_racks import load_bicycle_racks
from projects.memfusion.metrics.box_tables import Bools, Ints, TruthTable
from projects.memfusion.metrics.build_tables import OfficialFilter, build_truth, check_infos
from projects.memfusion.metrics.error_breakdown import (
    Judged,
    confusion,
    ego_distances_m,
    error_strata,
    instance_rows,
    judge,
    submitted,
)
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.visualization import BoxSet, write_png
from projects.memfusion.visualization.reads import Panel, draw_crop, draw_panels

from .viewer.boxes import ViewedBoxes, boxes_of_info, boxes_of_results
from .viewer.results import Results, find_results, read_detections
from .viewer.scene import ViewedInfos, read_infos
from .viewer.sensors import points_of

_HALF_M, _PANEL_PX = 10.0, 420
_SEEN_S = 2.0


@dataclass(frozen=True)
class CompareOptions:
    """How they are compared.

    Attributes:
        names: of the two files, in tables and pictures.
        match_m: a prediction finds truth of its class nearer than this.
        false_positives: a frame, which sets each file's score threshold.
        range_m: from the ego, what counts; None is each class's official range.
        pictures: at most so many of each kind.
    """

    names: tuple[str, str] = ('first', 'second')
    match_m: float = 2.0
    false_positives: float = 1.0
    range_m: float | None = None
    pictures: int = 6

    def __post_init__(self) -> None:
        for name, value in (('--match-m', self.match_m), ('--range-m', self.range_m)):
            if value is not None and not value > 0:
                raise UserError(f'{name} must be above 0 m, got {value:g}')
        if self.names[0] == self.names[1]:
            raise UserError(f'--names {" ".join(self.names)}: give the two result files names of their own')
        if self.false_positives < 0 or self.pictures < 0:
            raise UserError('--false-positives and --pictures must be 0 or more')


@dataclass(frozen=True)
class Comparison:
    """Two files judged on the same truth; `rows` says which instance of its info each truth is."""

    data: ViewedInfos
    results: tuple[Results, Results]
    classes: tuple[str, ...]
    truth: TruthTable
    rows: Ints
    judged: tuple[Judged, Judged]
    options: CompareOptions


def compare_results(paths: tuple[Path, Path], data: Path, out: Path, options: CompareOptions | None = None) -> list[str]:
    """Writes `breakdown.txt`, `breakdown.png` and, of what one file alone found, `only_NAME_XX.png` into `out`.

    Args:
        paths: of submissions of detection, or folders that hold one, of the same samples.
        data: root or info file that they were made from.

    Returns:
        The lines of the text.

    Raises:
        UserError, ValueError: naming what cannot be read or compared.
    """
    options = options or CompareOptions()
    found = compare(paths, data, options)
    groups = error_strata(found.truth, ego_distances_m(found.truth, found.data.infos), found.classes, _visibility(found))
    lines = [*_recall_lines(groups, found), *_confusion_lines(found)]
    out.mkdir(parents=True, exist_ok=True)
    (out / 'breakdown.txt').write_text('\n'.join(lines) + '\n')
    write_png(out / 'breakdown.png', draw_recalls(groups, found))
    for mine, other, name in ((0, 1, options.names[0]), (1, 0, options.names[1])):
        draw_wins(found, mine, other, out, f'only_{name}')
    return lines


def compare(paths: tuple[Path, Path], data: Path, options: CompareOptions) -> Comparison:
    """Reads both files and judges them; UserError where they are not of the same samples."""
    first, second = (read_detections(find_results(path))['results'] for path in paths)
    if first.keys() != second.keys():
        lost = next(iter(first.keys() ^ second.keys()))
        raise UserError(f'{paths[0]} and {paths[1]} are not of the same samples: only one of them has {lost}')
    found = read_infos(data, first.keys())
    check_infos(found.infos)
    tokens = [info['token'] for info in found.infos]
    racks = load_bicycle_racks(str(found.root), found.version, tokens) if found.has_tables else {}
    classes = tuple(found.categories.values())
    official = OfficialFilter(classes, options.range_m, racks)
    labels = {name: label for label, name in found.categories.items()}
    truth = build_truth(found.infos, classes, labels, _SEEN_S, official)
    predicted = [submitted(found.infos, results, classes, official) for results in (first, second)]
    judged = [judge(truth, boxes, len(tokens), options.match_m, options.false_positives) for boxes in predicted]
    rows = instance_rows(truth, found.infos)
    return Comparison(found, (first, second), classes, truth, rows, (judged[0], judged[1]), options)


def _visibility(found: Comparison) -> Ints | None:
    """(n,) nuScenes' level of each truth, which only the tables have."""
    if not found.data.has_tables:
        return None
    samples = {info['token'] for info in found.data.infos}
    levels = {(record['sample_token'], record['instance_token']): int(record['visibility_token'] or 0)
              for record in read_table(found.data.root, found.data.version, 'sample_annotation')
              if record['sample_token'] in samples}
    infos = [found.data.infos[frame] for frame in found.truth.frame]
    return np.array([levels.get((info['token'], info['instances'][row]['instance_token']), 0)
                     for info, row in zip(infos, found.rows)], dtype=np.int64)


def _recall_lines(groups: Mapping[str, Mapping[str, Bools]], found: Comparison) -> list[str]:
    (first, second), names = found.judged, found.options.names
    total = int(groups['all']['all'].sum())
    lines = [f'{name}: {int(one.detected.sum())} of {total} found, {int(one.is_false.sum())} false boxes in '
             f'{len(found.data.infos)} frames, score {one.threshold:.3f} or more' for name, one in zip(names, found.judged)]
    lines += ['', f'{"":<24}{"boxes":>8}{names[0][:10]:>12}{names[1][:10]:>12}{"only " + names[0][:10]:>17}'
                  f'{"only " + names[1][:10]:>17}']
    for group, strata in groups.items():
        lines += [''] if group != 'all' else []
        for name, inside in strata.items():
            if inside.any():
                shares = [f'{one.detected[inside].mean():.3f}' for one in found.judged]
                alone = [int((inside & mine & ~other).sum()) for mine, other in (
                    (first.detected, second.detected), (second.detected, first.detected))]
                lines.append(f'{name:<24}{int(inside.sum()):>8}{shares[0]:>12}{shares[1]:>12}{alone[0]:>17}{alone[1]:>17}')
    return lines


def _confusion_lines(found: Comparison) -> list[str]:
    lines = []
    for name, judged in zip(found.options.names, found.judged):
        table = confusion(found.truth, judged, len(found.classes), found.options.match_m)
        there = [label for label in range(len(found.classes)) if table[label].any() or table[:, label].any()]
        titles = [found.classes[label][:10] for label in there]
        lines += ['', f'{name}: true classes (rows) taken for (columns)', f'{"":<24}' + ''.join(
            f'{title:>12}' for title in (*titles, 'missed'))]
        for row in (*there, len(found.classes)):
            title = found.classes[row] if row < len(found.classes) else 'nothing there'
            lines.append(f'{title:<24}' + ''.join(f'{table[row, column]:>12}' for column in (*there, -1)))
    return lines


def draw_recalls(groups: Mapping[str, Mapping[str, Bools]], found: Comparison) -> np.ndarray:
    """RGB: recall of both in every stratum that has boxes, with their number."""
    bars = [(name, inside) for strata in groups.values() for name, inside in strata.items() if inside.any()]
    figure = Figure(figsize=(9, 1 + 0.32 * max(len(bars), 1)), dpi=100, layout='constrained')
    axes, places = figure.subplots(), np.arange(len(bars))
    for shift, name, judged in zip((-0.2, 0.2), found.options.names, found.judged):
        axes.barh(places + shift, [judged.detected[inside].mean() for _, inside in bars], 0.38, label=name)
    axes.set_yticks(places, [f'{name} ({int(inside.sum())})' for name, inside in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel(f'recall within {found.options.match_m:g} m (false positives a frame: {found.options.false_positives:g})')
    axes.legend()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def draw_wins(found: Comparison, mine: int, other: int, out: Path, stem: str) -> list[Path]:
    """Pictures of the surest boxes that one file alone found: what both predict there; older ones of the name go."""
    for old in out.glob(f'{stem}_*.png'):
        old.unlink()
    judged, scores = found.judged[mine], np.append(found.judged[mine].predicted.score, 0.0)
    rows = np.flatnonzero(judged.detected & ~found.judged[other].detected)
    rows = rows[np.argsort(-scores[judged.finder[rows]], kind='stable')][:found.options.pictures]
    paths = []
    for number, row in enumerate(rows):
        info = found.data.infos[found.truth.frame[row]]
        truth = boxes_of_info(info, found.data.categories)
        assert truth is not None
        points, own = points_of(info, found.data.root, found.data.lidar), found.rows[row]
        marked, visible = truth.keep(np.arange(len(truth)) == own), truth.keep(~truth.hidden)
        panels = []
        for name, results, one in zip(found.options.names, found.results, found.judged):
            predicted = boxes_of_results(results.get(info['token'], []), lidar_pose(info))
            assert predicted.scores is not None
            sure = predicted.keep(predicted.scores >= one.threshold)
            true, given, one_box = (as_box_set(boxes, found.classes) for boxes in (visible, sure, marked))
            panels.append(Panel(name, draw_crop(points, marked.centre_m[0, :2], _HALF_M, true, given, found.classes, one_box,
                                                size_px=_PANEL_PX)))
        paths.append(write_png(out / f'{stem}_{number:02d}.png', draw_panels(panels, [_title(found, int(row), mine)])))
    return paths


def _title(found: Comparison, row: int, mine: int) -> str:
    truth, info = found.truth, found.data.infos[found.truth.frame[row]]
    words = (f'{info["scene_name"]}, frame {info["frame_index"]}: {found.classes[truth.label[row]]}, '
             f'{truth.num_lidar_pts[row]} points')
    if truth.hidden is not None and truth.num_lidar_pts[row] == 0 and truth.hidden.gap_us[row] >= 0:
        words += f', seen {truth.hidden.gap_us[row] / 1e6:.1f} s ago'
    score = found.judged[mine].predicted.score[found.judged[mine].finder[row]]
    return f'{words}; {found.options.names[mine]} alone ({score:.2f})'


def as_box_set(boxes: ViewedBoxes, classes: Sequence[str]) -> BoxSet:
    """As the pictures from above take them: bottoms' middles, turned about z alone."""
    yaw = Rotation.from_quat(boxes.quaternion_xyzw).as_euler('ZYX')[:, 0] if len(boxes) else np.zeros(0)
    rows = np.column_stack([boxes.centre_m, boxes.size_m, yaw])
    rows[:, 2] -= boxes.size_m[:, 2] / 2
    labels: list[Any] = [classes.index(name) if name in classes else -1 for name in boxes.names]
    return BoxSet(rows, np.array(labels, dtype=np.int64), boxes.scores)
