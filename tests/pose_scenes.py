"""Rigs, heads and a slow oracle for pose encodings: the oracle builds D_i D_j^-1 for every pair of tokens."""

import math

import torch

from projects.encodings import Views

D, HEADS, GRID, IMAGE = 32, 2, (2, 3), (40, 64)


def draw(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def poses(batch, count, seed=0, shift=2.0):
    """(B, N, 4, 4) float64 rotations and translations."""
    turned, _ = torch.linalg.qr(draw(batch, count, 3, 3, seed=seed))
    turned = turned * torch.linalg.det(turned).sign()[..., None, None]
    matrix = torch.eye(4, dtype=torch.float64).repeat(batch, count, 1, 1)
    matrix[..., :3, :3], matrix[..., :3, 3] = turned, shift * draw(batch, count, 3, seed=seed + 1)
    return matrix


def cameras(batch, count, seed=0):
    """K with skew, principal point near the middle of IMAGE."""
    matrix = torch.eye(3, dtype=torch.float64).repeat(batch, count, 1, 1)
    matrix[..., :2, :2] += torch.tensor([[59.0, 1.5], [0.5, 49.0]], dtype=torch.float64)
    matrix[..., 0, 2], matrix[..., 1, 2] = 32.0, 20.0
    return matrix + torch.nn.functional.pad(draw(batch, count, 2, 3, seed=seed), (0, 0, 0, 1))


def views(batch=2, count=3, seed=0, grid=GRID, **changed):
    kept = dict(cam_from_world=poses(batch, count, seed), img_from_cam=cameras(batch, count, seed), image_hw=IMAGE, grid=grid,
                time=torch.arange(count)[None] // 2)
    return Views(**{**kept, **changed})


def heads(batch=2, tokens=18, seed=0, dtype=torch.float64):
    return [draw(batch, HEADS, tokens, D, seed=seed + part, dtype=dtype) for part in range(3)]


def turns(start, axis, pairs, base=100.0, first=0, of=None, width=None):
    """(channel, its partner, axis, frequency) of split halves; `of` and `first`: a ladder that runs on."""
    of, width = of or pairs, width or pairs
    return [(start + i, start + i + width, axis, base ** (-(first + i) / of)) for i in range(pairs)]


def joint(sections):
    """Sections of one ladder over all 32 channels, axes as given."""
    out, first = [], 0
    for axis, size in sections:
        out += turns(first, axis, size, 10000.0, first, D // 2, D // 2)
        first += size
    return out


FIELDS = [(16 + 4 * f + 2 * a, 17 + 4 * f + 2 * a, axis, -2 * math.pi * 2.0 ** (f - 3)) for f in range(4)
          for a, axis in enumerate(('v', 'u'))]
ORACLES = {
    'PRoPE': (16, [*turns(16, 'x', 4), *turns(24, 'y', 4)], True, True, 1 / 25),
    'GTA': (16, FIELDS, False, True, 0.01),
    'CaPE6': (32, [], False, False, 1 / 25),
    'RoPE-HW': (0, joint([('y', 8), ('x', 8)]), False, False, 1.0),
    'RoPE-THW': (0, joint([('t', 4), ('y', 6), ('x', 6)]), False, False, 1.0),
    'VO-RoPE': (0, joint([('y', 8), ('x', 8)]), False, True, 1.0),
    'HW+P': (16, [*turns(16, 'y', 4), *turns(24, 'x', 4)], False, False, 1 / 25),
    'THW+P': (8, [*turns(8, 't', 4), *turns(16, 'y', 4), *turns(24, 'x', 4)], False, False, 1 / 25),
}
"""Type -> channels of P, rotary pairs, whether K and values take part, scale of lengths."""


def dense(kind, seen):
    """(B, tokens, 32, 32) D of every token, by the definition."""
    of_poses, pairs, intrinsics, _, scale = ORACLES[kind]
    batch, count = seen.cam_from_world.shape[:2]
    rows, columns = seen.grid
    out = torch.eye(D, dtype=torch.float64).repeat(batch, count * rows * columns, 1, 1)
    token = 0
    for camera in range(count):
        for y in range(rows):
            for x in range(columns):
                place = dict(y=y, x=x, v=y / rows, u=x / columns)
                for b in range(batch):
                    place['t'] = float(seen.time[b % len(seen.time), camera])
                    matrix = seen.cam_from_world[b, camera].clone()
                    matrix[:3, 3] *= scale
                    if intrinsics:
                        lift, (height, width) = torch.eye(4, dtype=torch.float64), seen.image_hw
                        norm = torch.tensor([[1 / width, 0, -0.5], [0, 1 / height, -0.5], [0, 0, 1]], dtype=torch.float64)
                        lift[:3, :3] = norm @ seen.img_from_cam[b, camera]
                        matrix = lift @ matrix
                    for start in range(0, of_poses, 4):
                        out[b, token, start:start + 4, start:start + 4] = matrix
                    for u, w, axis, frequency in pairs:
                        angle = frequency * place[axis]
                        c, s = math.cos(angle), math.sin(angle)
                        out[b, token, u, u] = out[b, token, w, w] = c
                        out[b, token, w, u], out[b, token, u, w] = s, -s
                token += 1
    return out


def oracle(kind, q, k, v, seen_q, seen_k, mask=None):
    """Attention with D_i D_j^-1 of every pair."""
    relative = torch.einsum('bipr,bjrs->bijps', dense(kind, seen_q), torch.linalg.inv(dense(kind, seen_k)))
    logits = torch.einsum('bhip,bijps,bhjs->bhij', q, relative, k) / D ** 0.5
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    weight = logits.softmax(-1)
    if ORACLES[kind][3]:
        return torch.einsum('bhij,bijps,bhjs->bhip', weight, relative, v)
    return weight @ v
