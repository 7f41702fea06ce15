"""Stage data: images of a lens as a pinhole would have taken them, by OpenCV. In: images, K, lens. Out: images of the new K.

Maps and sampling are OpenCV's. Own is what it lacks: where the lens model ends (its maps go on, and show the rim twice), skew
and, in geometry.undistortion, the new K (getOptimalNewCameraMatrix looks at nine places of the border, and at no fisheye).
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from projects.geometry.distortion import FISHEYE, max_radius_of

Maps = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
Numbers = tuple[float, ...]
_OUTSIDE_PX = -2.0


def undistort_image(image: np.ndarray, img_from_cam: Tensor, model: Tensor, coefficients: Tensor,
                    new_img_from_cam: Tensor) -> np.ndarray:
    """The image that a pinhole with `new_img_from_cam` would have taken, bilinear (at 1/32 px); unseen pixels are 0.

    Args:
        image: (H, W) or (H, W, C) uint8.
        img_from_cam: (3, 3) or (4, 4) raw K.
        model: () code; coefficients: (5,), see geometry.distortion.
        new_img_from_cam: K afterwards, from geometry.undistortion.undistorted_intrinsics.

    Returns:
        The same shape and dtype.
    """
    maps = undistortion_maps(img_from_cam, model, coefficients, new_img_from_cam, (image.shape[0], image.shape[1]))
    return cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)


def undistortion_maps(img_from_cam: Tensor, model: Tensor, coefficients: Tensor, new_img_from_cam: Tensor,
                      hw: tuple[int, int]) -> Maps:
    """u and v in the raw image for every pixel of the undistorted one, two (H, W) for cv2.remap; not to be changed, as those
    of a camera are kept for its next frames.

    A pixel that the lens model does not reach gets -2, -2, which is outside. Arguments as for undistort_image.
    """
    tables = (tuple(each[:3, :3].double().flatten().tolist()) for each in (img_from_cam, new_img_from_cam))
    return _maps(*tables, int(model), tuple(coefficients.double().tolist()), hw)


@lru_cache(maxsize=16)
def _maps(table: Numbers, new_table: Numbers, model: int, coefficients: Numbers, hw: tuple[int, int]) -> Maps:
    matrix, new_matrix = (np.array(each).reshape(3, 3) for each in (table, new_table))
    if model == FISHEYE:
        u_px, v_px = cv2.fisheye.initUndistortRectifyMap(
            matrix, np.array(coefficients[:4]), np.eye(3), new_matrix, hw[::-1], cv2.CV_32FC1)
    else:
        u_px, v_px = cv2.initUndistortRectifyMap(matrix, np.array(coefficients), None, new_matrix, hw[::-1], cv2.CV_32FC1)
    if matrix[0, 1]:
        u_px += (v_px - matrix[1, 2]) * (matrix[0, 1] / matrix[1, 1])
    v, u = np.mgrid[:hw[0], :hw[1]]
    radius = np.hypot((u - new_matrix[0, 2]) / new_matrix[0, 0], (v - new_matrix[1, 2]) / new_matrix[1, 1])
    beyond = radius >= float(max_radius_of(torch.tensor(model), torch.tensor(coefficients, dtype=torch.float64)))
    u_px[beyond] = v_px[beyond] = _OUTSIDE_PX
    return u_px, v_px
