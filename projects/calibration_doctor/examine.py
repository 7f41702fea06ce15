"""Doctor. In: the frames of a data set. Out: a verdict per camera; the order of events of the calibration doctor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from tqdm import tqdm

from projects.memfusion.structures.calibration import Calibration

from .boxes import move_with_boxes, points_in_2d_boxes
from .drift_checks import check_drift, ego_path, turn_seconds, velocity_at
from .edge_scores import CameraFrameEvidence, Floats
from .file_checks import check_chain, check_names, check_structure, check_tables
from .image_checks import examine_camera, find_exchanged, points_are_raw, with_raw_points
from .image_edges import find_image_edges, map_scale
from .inputs import DoctorData, DoctorFrame
from .lidar_edges import find_lidar_edges
from .pose_tools import Pose
from .verdict import CameraVerdict, add_problems

_BLUR_STEPS = 0.3  # LiDAR steps: an edge lies anywhere between two rays
_MIN_BLUR_PX = 1.2
_BLANK_LEVELS = 3.0  # standard deviation of grey levels; images at night have more than 10
_MIN_BOX_POINTS, _MIN_BOX_SHARE = 100, 0.6


@dataclass
class _Gathered:
    """What the frames hold, by camera; sizes: (height, width) of its first image. paths: of the ego, by scene."""

    evidence: dict[str, list[CameraFrameEvidence]] = field(default_factory=dict)
    box_points: dict[str, tuple[int, int]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    paths: dict[str | None, tuple[Floats, Pose]] = field(default_factory=dict)


def examine(data: DoctorData) -> dict[str, CameraVerdict]:
    """Verdicts by camera: numbers of the files first, then LiDAR edges against image edges."""
    verdicts = {camera: CameraVerdict(camera) for camera in data.cameras}
    gathered = _Gathered()
    missing = {camera: [f'{len(found)} of its images missing: {found[0]}'] for camera, found in data.missing.items()}
    for problems in (missing, check_names(data.infos), check_chain(data.infos), check_drift(data.infos), check_tables(data)):
        add_problems(verdicts, problems)
    for frame in tqdm(data.frames, desc='edges of frames'):
        add_problems(verdicts, _gather(frame, data, gathered))
    add_problems(verdicts, check_structure(data.infos, gathered.sizes))
    _judge_boxes(verdicts, gathered.box_points)
    if points_are_raw(gathered.evidence):
        for camera, evidence in gathered.evidence.items():
            verdicts[camera].notes.append('judged as if its LiDAR points were not motion-compensated, which fits better')
            gathered.evidence[camera] = [with_raw_points(frame) for frame in evidence]
    for camera, evidence in tqdm(gathered.evidence.items(), desc='scores of cameras'):
        examine_camera(verdicts[camera], evidence)
    add_problems(verdicts, find_exchanged(gathered.evidence))
    return verdicts


def _gather(frame: DoctorFrame, data: DoctorData, gathered: _Gathered) -> dict[str, list[str]]:
    """Adds one frame's evidence; returns problems by camera (an image that is missing, blank or of another size)."""
    points = frame.points()
    edges, step_deg = find_lidar_edges(points)
    edges = move_with_boxes(edges, frame.info, step_deg)
    blind_deg = 0.0 if frame.info.get('instances') else step_deg / 2
    scene = frame.info.get('scene_token')
    if scene not in gathered.paths:
        gathered.paths[scene] = ego_path([info for info in data.infos if info.get('scene_token') == scene])
    stamps, poses = gathered.paths[scene]
    velocity = velocity_at(float(frame.info.get('timestamp', math.nan)) - 1e-3, stamps, poses)
    problems: dict[str, list[str]] = {}
    for camera, path in frame.image_paths.items():
        try:
            image = frame.image(camera)
        except OSError as error:
            problems[camera] = [f'{path.name} (frame {frame.label}): {error.strerror}']
            continue
        gathered.sizes.setdefault(camera, (image.shape[0], image.shape[1]))
        if image[::4, ::4].std() < _BLANK_LEVELS:
            problems[camera] = [f'its image is blank (frame {frame.label})']
            continue
        try:
            calibration = Calibration.from_info({camera: frame.info['images'][camera]}, gathered.sizes[camera],
                                                global_from_lidar=frame.info.get('global_from_lidar'))
        except ValueError:
            continue  # the structural check has said why
        expected = tuple(calibration.img_hw_raw[0, 0].tolist())
        if image.shape[:2] != expected:
            problems[camera] = [f'the image is {image.shape[1]} x {image.shape[0]}, the calibration is of '
                                f'{expected[1]} x {expected[0]}']
            continue
        px_per_deg = float(calibration.img_from_cam[0, 0, 0, 0]) * map_scale(image) * math.pi / 180
        image_edges = find_image_edges(image, max(_MIN_BLUR_PX, _BLUR_STEPS * step_deg * px_per_deg))
        lag_s = float(frame.info.get('timestamp', math.nan)) - float(calibration.t_cam[0, 0])
        gathered.evidence.setdefault(camera, []).append(CameraFrameEvidence(
            edges, image_edges, calibration, velocity, lag_s if math.isfinite(lag_s) else 0.0, turn_seconds(stamps), blind_deg))
        counted = points_in_2d_boxes(frame.info, points, calibration)
        before = gathered.box_points.get(camera, (0, 0))
        gathered.box_points[camera] = before[0] + counted[0], before[1] + counted[1]
    return problems


def _judge_boxes(verdicts: Mapping[str, CameraVerdict], box_points: Mapping[str, tuple[int, int]]) -> None:
    for camera, (inside, total) in box_points.items():
        if not total:
            verdicts[camera].notes.append('no box points to count')
            continue
        text = f'{inside / total:.0%} of {total} box points inside the 2-D boxes'
        if total >= _MIN_BOX_POINTS and inside / total < _MIN_BOX_SHARE:
            verdicts[camera].problems.append(f'only {text}')
        else:
            verdicts[camera].notes.append(text)

