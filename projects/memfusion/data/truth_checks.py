"""Stage data: can a head that matches boxes learn from a frame? In: its packed truth on the host. Out: nothing, or an error."""

from __future__ import annotations

import torch
from mmdet3d.structures import Det3DDataSample

from .errors import DataError


def check_truth(sample: Det3DDataSample, num_classes: int) -> None:
    """Boxes have a finite place, positive sizes and a class; velocities may be NaN, which is not known.

    Args:
        sample: with gt_instances_3d on the host.
        num_classes: labels are 0 to one less.

    Raises:
        DataError: naming the sample, the box and its value, and what to do.
    """
    truth = sample.gt_instances_3d
    name = f'sample {sample.metainfo.get("sample_token", "without a token")}'
    boxes, labels = truth.bboxes_3d.tensor[:, :7], truth.labels_3d
    sound = torch.isfinite(boxes).all(1) & (boxes[:, 3:6] > 0).all(1)
    if not bool(sound.all()):
        wrong = int((~sound).nonzero()[0])
        raise DataError(f'{name}: box {wrong} of its truth is x, y, z, length, width, height, yaw = '
                        f'{[round(value, 3) for value in boxes[wrong].tolist()]}: numbers must be finite and sizes above 0. '
                        'Mend the annotation and make the infos again (tools/create_data.py), or leave it out')
    known = (labels >= 0) & (labels < num_classes)
    if not bool(known.all()):
        wrong = int((~known).nonzero()[0])
        raise DataError(f'{name}: box {wrong} of its truth has label {int(labels[wrong])}, but model.pts_bbox_head has '
                        f'{num_classes} classes, 0 to {num_classes - 1}: put ObjectNameFilter(classes=class_names) into the '
                        'pipeline, which takes out what is none of them, or set num_classes')
