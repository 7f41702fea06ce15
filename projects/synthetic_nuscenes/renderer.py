"""Sensor stage: camera pictures by inverse-depth buffer; a scene, a pose and a canvas in, picture and owners out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from projects.synthetic_nuscenes.camera_model import Canvas
from projects.synthetic_nuscenes.ground_map import GroundPicture
from projects.synthetic_nuscenes.road import Ground
from projects.synthetic_nuscenes.snapshot import GROUND_OWNER, SKY_OWNER, UNSEEN_OWNER, Primitives
from projects.synthetic_nuscenes.textures import texture
from projects.synthetic_nuscenes.transforms import FloatArray, apply, box_corners, invert

NEAR_M = 0.15
FAR_M = 250.0
_SUN = np.array([0.35, 0.5, 0.79])
_HAZE_BGR = np.array([225.0, 215.0, 205.0])
# For each face: its lower left corner, the corner along its width, the corner along its height.
_FACES = np.array([[1, 3, 5], [2, 0, 6], [3, 2, 7], [0, 1, 4], [4, 5, 6], [2, 3, 0]])
_FACE_AXIS = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=np.float64)


@dataclass(frozen=True)
class Rendering:
    """One picture and its truth.

    Attributes:
        bgr: (H, W, 3) uint8.
        owner: (H, W) int32 agent index, or one of the negative owners of `snapshot`.
        depth_m: (H, W) float32 along the camera's z, inf for the sky.
        alone_px: pixels that each agent would cover if nothing hid it, by agent index.
        seen_share: of these pixels, the share that shows it, by index of each agent in sight; counted before the lens.
    """

    bgr: np.ndarray
    owner: np.ndarray
    depth_m: np.ndarray
    alone_px: dict[int, int]
    seen_share: dict[int, float]


def clip_near(polygon: FloatArray, near_m: float = NEAR_M) -> FloatArray:
    """Cut a (K, 3) camera-frame polygon at z = near (Sutherland-Hodgman); may come back empty."""
    inside = polygon[:, 2] > near_m
    if inside.all():
        return polygon
    kept: list[FloatArray] = []
    for i in range(len(polygon)):
        a, b = polygon[i - 1], polygon[i]
        if inside[i] != inside[i - 1]:
            kept.append(a + (b - a) * ((near_m - a[2]) / (b[2] - a[2])))
        if inside[i]:
            kept.append(b)
    return np.array(kept).reshape(-1, 3)


class _Painter:
    """Buffers of one picture."""

    def __init__(self, canvas: Canvas) -> None:
        self.width, self.height = canvas.wh_px
        matrix = canvas.img_from_cam
        self.focal, self.center = matrix[[0, 1], [0, 1]], matrix[:2, 2]
        self.ray_x = (np.arange(self.width) - self.center[0]) / self.focal[0]
        self.ray_y = (np.arange(self.height) - self.center[1]) / self.focal[1]
        self.inverse_depth = np.zeros((self.height, self.width))
        self.owner = np.full((self.height, self.width), SKY_OWNER, dtype=np.int32)
        self.bgr = np.zeros((self.height, self.width, 3), dtype=np.uint8)
        self.alone: dict[int, list[tuple[int, int, np.ndarray]]] = {}

    def background(self, global_from_cam: FloatArray, ground: Ground, picture: GroundPicture) -> None:
        """Sky above, ground plane below."""
        rotation, origin = global_from_cam[:3, :3], global_from_cam[:3, 3]
        up = np.einsum('ji,j->i', rotation, ground.normal)
        height = (origin[2] - float(ground.height(origin[0], origin[1]))) * ground.normal[2]
        inverse = -(self.ray_x[None] * up[0] + self.ray_y[:, None] * up[1] + up[2]) / height
        tilt = np.clip(-inverse * height, 0.0, 0.5)[..., None] * 2
        self.bgr[:] = _HAZE_BGR * (1 - tilt) + np.array([215.0, 165.0, 115.0]) * tilt
        rows, columns = np.nonzero(inverse > 1 / FAR_M)
        depth = 1 / inverse[rows, columns]
        steps = [self.ray_x[columns] * depth, self.ray_y[rows] * depth, depth]
        x, y = (sum(rotation[axis, i] * steps[i] for i in range(3)) + origin[axis] for axis in (0, 1))
        self.bgr[rows, columns] = _hazed(picture.colours(x, y).astype(np.float64), depth)
        self.inverse_depth[rows, columns] = inverse[rows, columns]
        self.owner[rows, columns] = GROUND_OWNER

    def face(
        self, quad: FloatArray, shade: float, colour: FloatArray, texture_name: str, owner: int, round_: bool = False
    ) -> None:
        """Draw a (4, 3) parallelogram (lower left, lower right, upper right, upper left) in the camera frame."""
        along, across = quad[1] - quad[0], quad[3] - quad[0]
        normal = _cross(along, across)
        offset = float(normal @ quad[0])
        outline = quad
        if round_:
            angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            middle = quad[0] + (along + across) / 2
            outline = middle + np.outer(np.cos(angle) / 2, along) + np.outer(np.sin(angle) / 2, across)
        outline = clip_near(outline)
        if len(outline) < 3 or abs(offset) < 1e-9:
            return
        pixels = outline[:, :2] / outline[:, 2:] * self.focal + self.center
        (left, top), (right, bottom) = pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()
        if left >= self.width or top >= self.height or right < -1 or bottom < -1:
            return
        low = (max(math.floor(left), 0), max(math.floor(top), 0))
        high = (min(math.ceil(right) + 1, self.width), min(math.ceil(bottom) + 1, self.height))
        if high[0] <= low[0] or high[1] <= low[1]:
            return
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), dtype=np.uint8)
        corners = np.rint(np.clip(pixels - low, -20000, 20000) * 16).astype(np.int32)
        cv2.fillConvexPoly(mask, corners, 1, shift=4)
        if owner >= 0:
            self.alone.setdefault(owner, []).append((low[0], low[1], mask))
        ray_x, ray_y = self.ray_x[low[0] : high[0]], self.ray_y[low[1] : high[1]]
        inverse = (ray_x[None] * normal[0] + ray_y[:, None] * normal[1] + normal[2]) / offset
        region = (slice(low[1], high[1]), slice(low[0], high[0]))
        rows, columns = np.nonzero((mask > 0) & (inverse > self.inverse_depth[region]))
        if not len(rows):
            return
        visible = inverse[rows, columns]
        point = np.stack([ray_x[columns] / visible, ray_y[rows] / visible, 1 / visible], axis=1) - quad[0]
        texels, multiplies = texture(texture_name)
        u = np.clip(np.einsum('ni,i->n', point, along) / (along @ along) * texels.shape[1], 0, texels.shape[1] - 1)
        v = np.clip(np.einsum('ni,i->n', point, across) / (across @ across) * texels.shape[0], 0, texels.shape[0] - 1)
        colours = texels[v.astype(int), u.astype(int)] * (colour if multiplies else 1.0) * shade
        self.inverse_depth[region][rows, columns] = visible
        self.owner[region][rows, columns] = owner
        self.bgr[region][rows, columns] = _hazed(colours, 1 / visible)

    def alone_counts(self) -> dict[int, int]:
        """Pixels of each agent's outline, whatever hides it."""
        counts = {}
        for owner, pieces in self.alone.items():
            left, top = min(p[0] for p in pieces), min(p[1] for p in pieces)
            right = max(p[0] + p[2].shape[1] for p in pieces)
            bottom = max(p[1] + p[2].shape[0] for p in pieces)
            union = np.zeros((bottom - top, right - left), dtype=np.uint8)
            for x, y, mask in pieces:
                union[y - top : y - top + mask.shape[0], x - left : x - left + mask.shape[1]] |= mask
            counts[owner] = int(np.count_nonzero(union))
        return counts


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    """Cross product of two (3,) vectors; much faster than numpy's for one pair."""
    ax, ay, az = a.tolist()
    bx, by, bz = b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


def _hazed(colours: FloatArray, depth_m: FloatArray) -> FloatArray:
    """Blend (N, 3) colours towards the haze with distance."""
    share = np.clip(depth_m / 400.0, 0.0, 0.45)[:, None]
    return np.clip(colours * (1 - share) + _HAZE_BGR * share, 0, 255)


def _draw_order(corners: FloatArray, canvas: Canvas) -> np.ndarray:
    """Solids that may be in the picture, near ones first."""
    focal, center = canvas.img_from_cam[[0, 1], [0, 1]], canvas.img_from_cam[:2, 2]
    low = -(center + 1) / focal
    high = (np.array(canvas.wh_px) - center) / focal
    depth = corners[..., 2]
    gone = (depth <= NEAR_M).all(axis=1)
    for axis in (0, 1):
        gone |= (corners[..., axis] < low[axis] * depth).all(axis=1)
        gone |= (corners[..., axis] > high[axis] * depth).all(axis=1)
    kept = np.nonzero(~gone)[0]
    return kept[np.argsort(depth[kept].min(axis=1), kind='stable')]


def render(
    global_from_cam: FloatArray, canvas: Canvas, primitives: Primitives, ground: Ground, picture: GroundPicture
) -> Rendering:
    """Draw one picture.

    Args:
        global_from_cam: (4, 4) at the camera's own time.
        canvas: from `make_canvas`.
        primitives: surfaces at the camera's own time.
        ground, picture: the ground plane and its colours.
    """
    painter = _Painter(canvas)
    painter.background(global_from_cam, ground, picture)
    cam_from_global = invert(global_from_cam)
    corners = apply(cam_from_global, box_corners(primitives.centers, primitives.rotations, primitives.half_sizes))
    for index in _draw_order(corners, canvas):
        look = (primitives.colours_bgr[index], primitives.textures[index], int(primitives.owner[index]))
        if primitives.is_blob[index]:
            half = primitives.half_sizes[index]
            center = apply(cam_from_global, primitives.centers[index])
            up = cam_from_global[:3, 2] * half[2]
            right = _cross(up, -center)
            right *= half[0] / np.linalg.norm(right) * -1
            quad = center + np.array([-right - up, right - up, right + up, -right + up])
            painter.face(quad, 0.95, look[0], look[1], look[2], round_=True)
            continue
        normals = np.einsum('ij,fj->fi', primitives.rotations[index], _FACE_AXIS)
        for face, (a, b, c) in enumerate(_FACES):
            lower_left, lower_right, upper_left = corners[index, a], corners[index, b], corners[index, c]
            quad = np.stack([lower_left, lower_right, lower_right + upper_left - lower_left, upper_left])
            facing = np.einsum('ij,j->i', cam_from_global[:3, :3], normals[face])
            if facing @ lower_left < 0:
                shade = 0.55 + 0.45 * max(0.0, float(normals[face] @ _SUN))
                name = look[1] if face < 4 or look[1] in ('glass', 'dark', 'skin', 'hazard') else 'plain'
                painter.face(quad, shade, look[0], name, look[2])
    return _through_lens(painter, canvas)


def _through_lens(painter: _Painter, canvas: Canvas) -> Rendering:
    """Bend the canvas into the lens's picture."""
    with np.errstate(divide='ignore'):
        depth = (1 / painter.inverse_depth).astype(np.float32)
    bgr, owner = painter.bgr, painter.owner
    if canvas.lookup is not None:
        inside = canvas.lookup >= 0
        flat = np.maximum(canvas.lookup, 0)
        bgr = np.where(inside[..., None], bgr.reshape(-1, 3)[flat], 0).astype(np.uint8)
        owner = np.where(inside, owner.reshape(-1)[flat], UNSEEN_OWNER)
        depth = np.where(inside, depth.reshape(-1)[flat], np.inf).astype(np.float32)
    alone_px = painter.alone_counts()
    agents, seen_px = np.unique(painter.owner[painter.owner >= 0], return_counts=True)
    seen_share = {agent: seen / alone_px[agent] for agent, seen in zip(agents.tolist(), seen_px.tolist())}
    return Rendering(bgr, owner, depth, alone_px, seen_share)
