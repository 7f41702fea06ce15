"""Stage data: is a rig likely? In: a Calibration, raw LiDAR frame. Out: faults by camera, errors, a warning.

Calibration.from_info refuses matrices that are none. A rotation of a wrong convention (inverted, w-last quaternion, radians
for degrees, two cameras exchanged) is a rotation all the same; what gives it away is a camera that lies on its side or
looks where its name does not say. A fault that happens to leave a camera where it was (a w-last quaternion of a camera that
looks exactly ahead) can only be seen in the others.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence

import numpy as np

from projects.memfusion.structures.calibration import Calibration

NUSCENES_CAMERAS = ('CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT')
MAX_TILT_DEG = 60.0
MAX_BASELINE_M = 5.0
MAX_HEADING_OFF_DEG = 45.0
MAX_STAMP_GAP_S = 0.2
_VIEW_DEG = (5.0, 175.0)
"""Horizontal field of view of a pinhole or radtan camera, at least and at most."""
_CENTER, _NUSCENES_CENTER = (0.3, 0.7), (0.44, 0.56)
"""Where across the image's width the principal point may lie; nuScenes' own lie between 0.495 and 0.518."""
_AHEAD_DEG = {'front': 0.0, 'back': 180.0, 'rear': 180.0}


class CalibrationError(ValueError):
    """A rig that cannot be right; the message names sample, camera and what is wrong."""


class RigWarning(UserWarning):
    """A rig of unknown make that does not look right."""


def rig_problems(calibration: Calibration) -> dict[str, list[str]]:
    """What is unlikely about each camera that is there, by name; cameras without a fault are left out.

    Checked, in the first frame: the camera's y axis within MAX_TILT_DEG of down, its centre within MAX_BASELINE_M of the
    LiDAR, a principal point inside the image and, across, not far from its middle (K of another image size), a field of
    view that lenses have, no two cameras of the same K and pose, and headings that agree with the names front, back, left,
    right (see _heading_problems).
    `calib_noise` and `bev_aug` play no part.
    """
    present = calibration.cam_valid[0].tolist()
    names = [name for name, there in zip(calibration.cam_names, present) if there]
    matrices, intrinsics = (getattr(calibration, name)[0].double().cpu().numpy()[present]
                            for name in ('cam_from_lidar', 'img_from_cam'))
    sizes = calibration.img_hw_raw[0].cpu().numpy()[present]
    fisheye = (calibration.distortion_model[0].cpu().numpy() == 2)[present]
    problems: dict[str, list[str]] = {name: [] for name in names}
    like_nuscenes = NUSCENES_CAMERAS if is_nuscenes_like(calibration) else ()
    for name, matrix, camera, size, wide in zip(names, matrices, intrinsics, sizes, fisheye):
        center = _NUSCENES_CENTER if name in like_nuscenes else _CENTER
        problems[name] += _mounting_problems(matrix) + _lens_problems(camera, size, wide, center)
    for name, problem in [*_twin_problems(names, matrices, intrinsics).items(), *_heading_problems(names, matrices).items()]:
        problems[name].append(problem)
    return {name: found for name, found in problems.items() if found}


def check_rig(calibration: Calibration) -> list[str]:
    """The faults of rig_problems as sentences that start with the camera's name."""
    return [f'{name}: {problem}' for name, found in rig_problems(calibration).items() for problem in found]


def is_nuscenes_like(calibration: Calibration) -> bool:
    """Whether the rig is nuScenes', or a part of it, or has further cameras beside it; by name."""
    names = set(calibration.cam_names)
    return names <= set(NUSCENES_CAMERAS) or names >= set(NUSCENES_CAMERAS)


def require_likely_rig(calibration: Calibration, sample: str = '') -> None:
    """Raises CalibrationError for an unlikely rig of nuScenes' cameras; warns (RigWarning) about any other rig.

    Args:
        calibration: the rig.
        sample: how the message calls the frame.
    """
    found = check_rig(calibration)
    if not found:
        return
    text = '; '.join(found)
    if is_nuscenes_like(calibration):
        raise CalibrationError(f'calibration of sample {sample or "?"} cannot be right: {text}. Check the order of quaternions '
                               '(w first), radians and degrees, which way the matrices map, and which camera is which')
    warnings.warn(f'the rig {list(calibration.cam_names)} looks unlikely: {text}', RigWarning, stacklevel=2)


def stamp_problems(calibration: Calibration, max_stamp_gap_s: float = MAX_STAMP_GAP_S) -> dict[str, str]:
    """Cameras whose stamp is too far from their frame's LiDAR stamp, by name; unknown stamps (NaN) pass."""
    gap_s = (calibration.t_cam - calibration.t_lidar[:, None]).cpu()
    bad = (gap_s.abs() > max_stamp_gap_s) & calibration.cam_valid.cpu()
    return {calibration.cam_names[camera]: f'its stamp is {float(gap_s[frame, camera]):+.3f} s from the LiDAR stamp, at most '
            f'{max_stamp_gap_s} s are allowed' for frame, camera in bad.nonzero().tolist()}


def check_stamps(calibration: Calibration, sample: str = '', max_stamp_gap_s: float = MAX_STAMP_GAP_S) -> None:
    """Raises CalibrationError naming sample and cameras where a stamp is too far from the LiDAR's."""
    problems = stamp_problems(calibration, max_stamp_gap_s)
    if problems:
        text = '; '.join(f'{name}: {problem}' for name, problem in problems.items())
        raise CalibrationError(f'sample {sample or "?"}: {text}. Check the stamps (seconds, one clock), or raise '
                               'max_stamp_gap_s')


def check_image_size(calibration: Calibration, camera: str, hw: Sequence[int], sample: str = '') -> None:
    """Raises CalibrationError naming sample and camera where an image (height, width) is not of its calibration's raw size."""
    expected = calibration.img_hw_raw[0, calibration.cam_names.index(camera)].tolist()
    if list(hw[:2]) != expected:
        raise CalibrationError(f'sample {sample or "?"}: the image of {camera} is {hw[1]} x {hw[0]}, its calibration is of '
                               f'{expected[1]} x {expected[0]}: use the images that were calibrated, or calibrate these')


def _mounting_problems(cam_from_lidar: np.ndarray) -> list[str]:
    problems = []
    down = math.degrees(math.acos(float(np.clip(-cam_from_lidar[1, 2], -1, 1))))  # y axis against the LiDAR's -z
    if down > MAX_TILT_DEG:
        problems.append(f'its y axis is {down:.0f} deg from down')
    baseline_m = float(np.linalg.norm(cam_from_lidar[:3, 3]))
    if baseline_m > MAX_BASELINE_M:
        problems.append(f'it is {baseline_m:.1f} m from the LiDAR')
    return problems


def _lens_problems(img_from_cam: np.ndarray, hw: np.ndarray, fisheye: bool, center: tuple[float, float]) -> list[str]:
    problems = []
    (height, width), (u, v) = hw.tolist(), img_from_cam[:2, 2].tolist()
    if not (-0.5 <= v <= height - 0.5) or not (center[0] <= (u + 0.5) / width <= center[1]):
        problems.append(f'its principal point ({u:.0f}, {v:.0f}) is not near the middle of a {width} x {height} image '
                        '(K of images of another size?)')
    view_deg = math.degrees(2 * math.atan(width / 2 / img_from_cam[0, 0]))
    if not fisheye and not _VIEW_DEG[0] <= view_deg <= _VIEW_DEG[1]:
        problems.append(f'a focal length of {img_from_cam[0, 0]:.4g} px on a {width} px wide image is a field of view of '
                        f'{view_deg:.1f} deg')
    return problems


def _twin_problems(names: Sequence[str], cam_from_lidar: np.ndarray, img_from_cam: np.ndarray) -> dict[str, str]:
    """Cameras that have both K and pose of one before them."""
    problems = {}
    for later, name in enumerate(names):
        for earlier in range(later):
            if np.array_equal(cam_from_lidar[later], cam_from_lidar[earlier]) \
                    and np.array_equal(img_from_cam[later], img_from_cam[earlier]):
                problems[name] = f'it has K and pose of {names[earlier]}: the rig has a camera twice'
    return problems


def _heading_problems(names: Sequence[str], cam_from_lidar: np.ndarray) -> dict[str, str]:
    """Headings seen from above against the names: order around the car, then each by itself.

    Which way the LiDAR itself is turned is not known (nuScenes: y ahead; others: x ahead), so headings are compared after the
    one turn that suits most cameras. A rig with fewer than three telling names has none that could be wrong.
    """
    expected = {name: heading for name in names if (heading := _named_heading_deg(name)) is not None}
    if len(expected) < 3:
        return {}
    ahead = {name: matrix[2, :2] for name, matrix in zip(names, cam_from_lidar)}  # z axis of the camera, LiDAR x and y
    off = np.array([math.degrees(math.atan2(ahead[name][1], ahead[name][0])) - heading for name, heading in expected.items()])
    spread = _wrap(off[:, None] - off)
    best = int(np.abs(spread).sum(axis=0).argmin())
    off = _wrap(off - off[best] - np.median(spread[:, best]))
    problems = {name: f'it looks {value:+.0f} deg (left positive) off where its name says'
                for name, value in zip(expected, off) if abs(value) > MAX_HEADING_OFF_DEG}
    if not problems and len(set(expected.values())) == len(expected):
        turned = {name: float(heading + value) for (name, heading), value in zip(expected.items(), off)}
        by_name, by_angle = (sorted(expected, key=key.__getitem__) for key in (expected, turned))
        first = by_angle.index(by_name[0])  # around a circle any camera may come first
        around = by_angle[first:] + by_angle[:first]
        problems = {name: f'it stands where {other} should be, going around the car'
                    for name, other in zip(around, by_name) if name != other}
    return problems


def _wrap(angle_deg: np.ndarray) -> np.ndarray:
    return (angle_deg + 180.0) % 360.0 - 180.0


def _named_heading_deg(name: str) -> float | None:
    """Heading that a name says, left positive, or None: FRONT_LEFT 55 (as in nuScenes), LEFT 90, BACK_LEFT 120."""
    words = [word.lower() for word in re.findall(r'[A-Z]+(?![a-z])|[A-Z]?[a-z]+', name)]
    side = 1.0 if 'left' in words else -1.0 if 'right' in words else 0.0
    ahead = next((_AHEAD_DEG[word] for word in words if word in _AHEAD_DEG), None)
    if ahead is None:
        return 90.0 * side if side else None
    if not side:
        return ahead
    return side * (55.0 if ahead == 0.0 else 120.0)
