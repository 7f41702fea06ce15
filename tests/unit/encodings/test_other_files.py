"""Replays of pose encodings meet files of other sizes, made by the slow oracle: K beyond the image, any factor of lengths."""

import numpy as np
import pytest
import replay
import torch
from pose_scenes import D, cameras, dense, draw, heads, oracle, poses

from projects.encodings import Views

IMAGE, GRID = (30, 50), (3, 2)


def write(path, **arrays):
    np.savez(path, **{name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in arrays.items()})
    return replay.replay(path)


def posed(batch, count, seed, factor=1.0, **seen):
    """Poses, and views of them for the oracle, with lengths times a factor."""
    matrix = poses(batch, count, seed)
    scaled = matrix.clone()
    scaled[..., :3, 3] *= factor
    return matrix, Views(scaled, grid=GRID, time=torch.zeros(1, count), validate=False, **seen)


def turned(kind, seen, q, k, v):
    """Features as D^T q, D^-1 k and D^-1 v of every token."""
    matrix = dense(kind, seen)
    inverse = torch.linalg.inv(matrix)
    return (torch.einsum('btpc,bhtp->bhtc', matrix, q), *(torch.einsum('btpc,bhtc->bhtp', inverse, x) for x in (k, v)))


def test_prope_with_principal_points_outside_the_image(tmp_path):
    q, k, v = heads(1, 24, seed=1)
    intrinsics = cameras(1, 4, 3)
    intrinsics[..., 0, 1] = intrinsics[..., 1, 0] = 0
    intrinsics[:, 1, :2, 2] = torch.tensor([-7.0, 64.0], dtype=torch.float64)
    viewmats, seen = posed(1, 4, 5, 25.0, img_from_cam=intrinsics, image_hw=IMAGE)  # the oracle divides by 25
    tq, tk, tv = turned('PRoPE', seen, q, k, v)
    given = dict(q=q, k=k, v=v, viewmats=viewmats, Ks=intrinsics, settings=np.array([2, 3, 50, 30, 2, 3]),
                 viewmats_tok=viewmats.repeat_interleave(6, 1), Ks_tok=intrinsics.repeat_interleave(6, 1),
                 cross_k=k[:, :, :12], cross_v=v[:, :, :12], cross_viewmats=viewmats[:, 1:3], cross_Ks=intrinsics[:, 1:3])
    others = Views(seen.cam_from_world[:, 1:3], intrinsics[:, 1:3], IMAGE, GRID, torch.zeros(1, 2), validate=False)
    out = oracle('PRoPE', q, k, v, seen, seen)
    published = dict(tq_K=tq, tk_K=tk, tv_K=tv, out_K=out, out_tok_K=out,
                     out_K_causal=oracle('PRoPE', q, k, v, seen, seen, torch.ones(24, 24, dtype=torch.bool).tril()),
                     out_cross=oracle('PRoPE', q, k[:, :, :12], v[:, :, :12], seen, others))
    assert write(tmp_path / 'prope_other.npz', **given, **published) == 0
    assert write(tmp_path / 'prope_wrong.npz', **given, **{**published, 'out_cross': -published['out_cross']}) == 1


@pytest.mark.parametrize('factor', [-0.4, 0.0, 2.0])
def test_gta_with_any_factor_of_lengths(tmp_path, factor):
    q, k, v = heads(1, 12, seed=2)
    extrinsic, seen = posed(1, 2, 6, factor / 0.01)  # the oracle takes a hundredth
    _, unit = posed(1, 2, 6, 1 / 0.01)
    y, x = np.divmod(np.arange(6), GRID[1])
    given = dict(q=q, k=k, v=v, extrinsic=extrinsic, coord=np.stack([y / GRID[0], x / GRID[1]], -1).reshape(*GRID, 2),
                 settings=np.array([*GRID, 4, 1, 1, 0, 16, 16]), trans_coeff=np.array(factor))
    tq, tk, _ = turned('GTA', seen, q, k, v)
    weight = (tq @ tk.transpose(-1, -2) / D ** 0.5).softmax(-1)
    out = oracle('GTA', q, k, v, seen, seen)
    assert write(tmp_path / 'gta_other.npz', **given, out=out, attn=weight, out_qk_only=weight @ v,
                 out_unit=oracle('GTA', q, k, v, unit, unit)) == 0
    if factor != 2:
        assert write(tmp_path / 'gta_wrong.npz', **given, out=oracle('GTA', q, k, v, unit, unit)) == 1


def test_cape_with_one_camera_and_other_channels(tmp_path):
    queries, keys = draw(3, 4, 8, seed=1), draw(3, 6, 8, seed=2)
    p_q, p_k = poses(3, 1, 3), poses(3, 2, 4)
    tq, tk = queries.clone(), keys.clone()
    for b in range(3):
        for token in range(4):
            for g in (0, 4):
                tq[b, token, g:g + 4] = queries[b, token, g:g + 4] @ torch.linalg.inv(p_q[b, 0]).T
        for token in range(6):
            for g in (0, 4):
                tk[b, token, g:g + 4] = keys[b, token, g:g + 4] @ p_k[b, token // 3]
    score = tq @ tk.transpose(1, 2)
    assert write(tmp_path / 'cape_other.npz', f_q=queries, f_k=keys, p_q=p_q, p_k=p_k, tq=tq, tk=tk, score=score) == 0
