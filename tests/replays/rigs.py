"""What the replays of camera detectors share: published matrices in, our rigs out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from projects.memfusion.structures import Calibration


def rig_of(img_from_lidar: np.ndarray, img_hw: np.ndarray, padded_hw: tuple[int, int], t_lidar: np.ndarray | None = None,
           t_cam: np.ndarray | None = None) -> Calibration:
    """The rig whose pixels are those of published lidar2img matrices.

    Args:
        img_from_lidar: (B, N, 4, 4) float64.
        img_hw: (B, N, 2) height and width of the images without padding.
        padded_hw: height and width of the padded images.
        t_lidar, t_cam: (B,) and (B, N) float64 seconds.

    Raises:
        ValueError: for a matrix that is not K times a rigid transform.
    """
    img_from_cam, cam_from_lidar = (np.zeros_like(img_from_lidar, dtype=np.float64) for _ in range(2))
    for at in np.ndindex(*img_from_lidar.shape[:2]):
        img_from_cam[at], cam_from_lidar[at] = split(img_from_lidar[at])
    stamps = (None if stamp is None else torch.from_numpy(np.asarray(stamp, dtype=np.float64)) for stamp in (t_lidar, t_cam))
    rig = Calibration.from_matrices(
        torch.from_numpy(img_from_cam), torch.from_numpy(cam_from_lidar), torch.from_numpy(np.array(img_hw)),
        t_lidar=next(stamps), t_cam=next(stamps))
    return replace(rig, padded_hw=padded_hw)


def split(img_from_lidar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(4, 4) -> padded K (4, 4), upper triangular with a 1 in the corner, and a rigid transform (4, 4)."""
    turned, triangle = np.linalg.qr(np.linalg.inv(img_from_lidar[:3, :3].astype(np.float64)))
    signs = np.sign(np.diag(triangle))
    matrix = np.linalg.inv(triangle * signs[:, None])
    cam_from_lidar, padded = np.eye(4), np.eye(4)
    cam_from_lidar[:3, :3] = (turned * signs).T
    cam_from_lidar[:3, 3] = np.linalg.solve(matrix, img_from_lidar[:3, 3])
    if np.linalg.det(cam_from_lidar[:3, :3]) < 0 or abs(matrix[2, 2] - 1) > 1e-6:
        raise ValueError(f'lidar2img is no K times a rigid transform: {img_from_lidar.tolist()}')
    padded[:3, :3] = matrix / matrix[2, 2]
    return padded, cam_from_lidar
