"""Metric. In: true and predicted 2-D boxes of all images, in pixels. Out: COCO's precision, and which truth was found."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .box_tables import Floats, Ints


@dataclass(frozen=True)
class ImageBoxes:
    """Boxes of one image.

    Attributes:
        boxes_px: (n, 4) x1, y1, x2, y2; labels: (n,); depth_m: (n,).
        scores: (n,) for predictions, None for truth.
    """

    boxes_px: Floats
    labels: Ints
    depth_m: Floats
    scores: Floats | None = None


@dataclass(frozen=True)
class CocoScores:
    """What COCO's evaluator says.

    Attributes:
        ap: (10, K) average precision at IoU 0.50, 0.55, ..., 0.95 for each class; NaN for a class without truth.
        found: (p, 2) at IoU 0.5: rows of the found truth and of the predictions that found it, counted over all images.
    """

    ap: Floats
    found: Ints


def coco_scores(
    truth: Sequence[ImageBoxes], predicted: Sequence[ImageBoxes], num_classes: int, max_boxes: int
) -> CocoScores:
    """COCO's own evaluator on boxes of any size.

    Args:
        truth, predicted: one for each image, in the same order, which decides between equal scores.
        num_classes: K; labels are 0 to K - 1.
        max_boxes: the best this many predictions of a class count in an image.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        evaluator = COCOeval(_coco(truth, num_classes), _coco(predicted, num_classes), 'bbox')
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ['all']
        evaluator.params.maxDets = [max_boxes]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval['precision'][:, :, :, 0, 0]  # (IoU, recall, class), -1 for a class without truth
    ap = np.where((precision < 0).all(axis=1), np.nan, precision.mean(axis=1))
    found = [(int(match) - 1, number - 1) for image in evaluator.evalImgs if image is not None
             for number, match in zip(image['dtIds'], image['dtMatches'][0], strict=True) if match > 0]
    return CocoScores(ap, np.array(found, dtype=np.int64).reshape(-1, 2))


def _coco(images: Sequence[ImageBoxes], num_classes: int) -> COCO:
    """COCO's index of boxes; ids count from 1, because its evaluator takes 0 for no match."""
    rows: list[dict[str, Any]] = []
    for number, image in enumerate(images):
        sizes = image.boxes_px[:, 2:] - image.boxes_px[:, :2]
        for row in range(len(sizes)):
            entry = dict(id=len(rows) + 1, image_id=number, category_id=int(image.labels[row]), iscrowd=0,
                         bbox=[*image.boxes_px[row, :2].tolist(), *sizes[row].tolist()], area=float(sizes[row].prod()))
            rows.append(entry if image.scores is None else {**entry, 'score': float(image.scores[row])})
    coco = COCO()
    coco.dataset = dict(images=[dict(id=number) for number in range(len(images))], annotations=rows,
                        categories=[dict(id=label) for label in range(num_classes)])
    coco.createIndex()
    return coco
