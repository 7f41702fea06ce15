"""Shared by the multi-view tests: a rig made by hand, images of dots, and where they lie."""

import copy

import numpy as np
import torch

from projects.memfusion.data.sequence_fields import load_info_file
from projects.memfusion.structures.calibration import Calibration

LOOKS_ALONG_Y = [[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]


def rig(*sizes, focal=1000.0):
    """Cameras at the LiDAR that look along its y, one of each (height, width); the same view at every size."""
    images = {}
    for number, (height, width) in enumerate(sizes):
        scale_u, scale_v = width / 1600, height / 900  # pixel centres: u + 0.5 scales, u does not
        k = [[focal * scale_u, 0, 812.5 * scale_u - 0.5], [0, focal * scale_v, 430.5 * scale_v - 0.5], [0, 0, 1]]
        images[f'CAM_{number}'] = dict(cam2img=k, lidar2cam=LOOKS_ALONG_Y, height=height, width=width)
    return Calibration.from_info(images)


def frame(images, calibration, **more):
    """What LoadMultiViewImages leaves."""
    return dict(img=list(images), calibration=calibration, sample_token='s0', **more)


def points_at(uv_px, calibration, camera=0, depth_m=(5.0, 40.0), seed=0):
    """(1, P, 3) LiDAR points that lie behind raw pixels (P, 2), by K and the axes alone."""
    k = calibration.img_from_cam[0, camera].double().numpy()
    z = np.random.default_rng(seed).uniform(*depth_m, len(uv_px))
    x, y = ((uv_px[:, i] - k[i, 2]) / k[i, i] * z for i in (0, 1))
    return torch.tensor(np.stack([x, z, -y], -1)[None], dtype=torch.float32)


def dots(hw=(900, 1600), count=(10, 20), seed=0, sigma=4.0):
    """(H, W, 3) uint8 with Gaussian dots on black, and their true places (P, 2), at least 2/3 of a field apart."""
    rng = np.random.default_rng(seed)
    step = np.array([hw[1] / count[1], hw[0] / count[0]])
    cells = np.stack(np.meshgrid(np.arange(count[1]), np.arange(count[0])), -1).reshape(-1, 2)
    uv_px = (cells + 0.5 + rng.uniform(-1 / 6, 1 / 6, cells.shape)) * step
    image = np.zeros(hw)
    v, u = np.mgrid[-20:21, -20:21]
    for place in uv_px:
        near = np.rint(place).astype(int)
        patch = 230 * np.exp(-((u + near[0] - place[0]) ** 2 + (v + near[1] - place[1]) ** 2) / (2 * sigma ** 2))
        rows, columns = near[1] + v, near[0] + u
        inside = (rows >= 0) & (rows < hw[0]) & (columns >= 0) & (columns < hw[1])
        np.add.at(image, (rows[inside], columns[inside]), patch[inside])
    return np.repeat(np.rint(image).astype(np.uint8)[..., None], 3, axis=2), uv_px


def centroids(image, expected_px, radius=9):
    """(P, 2) centre of brightness around each expected place, NaN where the window leaves the image."""
    found = np.full((len(expected_px), 2), np.nan)
    for number, (u, v) in enumerate(np.rint(expected_px).astype(int)):
        if radius <= u < image.shape[1] - radius and radius <= v < image.shape[0] - radius:
            patch = image[v - radius:v + radius + 1, u - radius:u + radius + 1, 0].astype(float)
            rows, columns = np.mgrid[v - radius:v + radius + 1, u - radius:u + radius + 1]
            found[number] = (patch * columns).sum() / patch.sum(), (patch * rows).sum() / patch.sum()
    return found


def nano_frames(root):
    """A function that gives what a pipeline gets for keyframe `index` of the nano world, image paths in full."""
    infos = load_info_file(root / 'nuscenes_infos_train.pkl')[0]

    def make(index=1):
        info = copy.deepcopy(infos[index])
        for name, image in info['images'].items():
            image['img_path'] = str(root / 'samples' / name / image['img_path'])
        return {**info, 'sample_token': info['token'], 'is_keyframe': True}

    return make
