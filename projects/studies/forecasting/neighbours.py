"""Study. In: a world's tables, agents. Out: what is truly before each of them now: the bound of what memory can have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from nuscenes.prediction import PredictHelper
from nuscenes.prediction.helper import convert_global_coords_to_local
from torch import Tensor

NONE_M = 40.0
"""Distance of who is not there."""
_LANE_M, _ROAD_M = 2.0, 8.0
_WIDTH = 7


def true_neighbours(helper: PredictHelper, tokens: Sequence[str]) -> Tensor:
    """(A, 7) of agents `instance_sample`, in their own frames, about one in size: of the nearest vehicle ahead in the lane
    distance, speed along the agent's heading, and 1; of the nearest person ahead on the road distance, place to the right,
    speed to the right, and 1. Who is not there is NONE_M away, with zeros.
    """
    boxes: dict[str, list[Mapping[str, Any]]] = {}
    velocities: dict[str, np.ndarray] = {}
    found = np.zeros((len(tokens), _WIDTH), dtype=np.float32)
    for row, token in enumerate(tokens):
        instance, sample = token.split('_')
        if sample not in boxes:
            boxes[sample] = helper.get_annotations_for_sample(sample)
            for box in boxes[sample]:
                velocity = helper.data.box_velocity(box['token'])[:2]
                velocities[box['token']] = np.where(np.isnan(velocity), 0.0, velocity)  # NaN: labelled in one frame alone
        me = next(box for box in boxes[sample] if box['instance_token'] == instance)
        others = [box for box in boxes[sample] if box['instance_token'] != instance]
        found[row] = _seen_from(me, others, velocities)
    return torch.from_numpy(found)


def _seen_from(me: Mapping[str, Any], others: Sequence[Mapping[str, Any]], velocities: Mapping[str, np.ndarray]) -> list[float]:
    leader, person = (NONE_M, 0.0, 0.0), (NONE_M, 0.0, 0.0, 0.0)
    if others:
        origin = me['translation'], me['rotation']
        places = convert_global_coords_to_local(np.array([box['translation'][:2] for box in others]), *origin)
        speeds = np.array([velocities[box['token']] for box in others])
        moves = convert_global_coords_to_local(speeds, (0.0, 0.0, 0.0), me['rotation'])
        for box, (right, ahead), move in zip(others, places, moves):
            if box['category_name'].startswith('human'):
                if 0 < ahead < person[0] and abs(right) < _ROAD_M:
                    person = (ahead, right, move[0], 1.0)
            elif 0 < ahead < leader[0] and abs(right) < _LANE_M:
                leader = (ahead, move[1], 1.0)
    return [leader[0] / 20, leader[1] / 5, leader[2], person[0] / 20, person[1] / 5, *person[2:]]
