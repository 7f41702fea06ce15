"""Demo, the keyframe's report. In: the keyframe, what was found, how it scored. Out: report.html beside the pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from projects.memfusion.structures.calibration import Calibration
from projects.memfusion.visualization import BoxSet
from projects.reports import PlayedFrame, PlayedScene, Report, config_changes, run_facts, write_report
from projects.reports.study import REPO

from .input import Keyframe
from .score import KeyframeScore


def report_keyframe(keyframe: Keyframe, points: np.ndarray, truth: BoxSet, predictions: BoxSet, calibration: Calibration,
                    score: KeyframeScore, config: Path, classes: list[str], range_m: list[float], out: Path) -> Path:
    """Writes the page, whose scene has the one frame; returns its path."""
    frame = PlayedFrame('the keyframe', points, truth, predictions, None, keyframe.images, calibration)
    return write_report(out / 'report.html', Report(
        'MemFusion on one keyframe', run_facts(REPO), [score.line(), *(f'missed: {one}' for one in score.failures())],
        pictures={path.stem: path for path in sorted(out.glob('*.png'))}, config=str(config), changes=config_changes(config),
        scene=PlayedScene('keyframe', range_m, classes, [frame])))
