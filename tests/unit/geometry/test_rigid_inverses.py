"""Unit: closed inverses against torch's, for turns, mirrors, scales, shears and homographies."""

from __future__ import annotations

import torch

from projects.geometry.rigid import compose, invert_3x3, invert_affine


def matrices(dtype: torch.dtype) -> torch.Tensor:
    """(2, 50, 4, 4) affine and by no means rigid; half of them mirror."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.eye(4, dtype=torch.float64).repeat(2, 50, 1, 1)
    matrix[..., :3, :] += 0.4 * torch.randn(2, 50, 3, 4, generator=generator, dtype=torch.float64)
    matrix[1, :, 0] *= -1
    matrix[..., :3, 3] *= 100
    return matrix.to(dtype)


def test_closed_inverses_equal_torchs() -> None:
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-2)):  # translations of 100 m, condition numbers of 100
        affine = matrices(dtype)
        assert affine[1].det().min() < 0 < affine[0].det().max()
        found = invert_affine(affine)
        assert found.dtype == dtype
        assert (found - torch.linalg.inv(affine.double())).abs().max() < tolerance
        assert torch.equal(found[..., 3, :], affine[..., 3, :])
    homography = matrices(torch.float64)[..., :3, :3]
    assert (invert_3x3(homography) - torch.linalg.inv(homography)).abs().max() < 1e-11
    whole = torch.eye(4, dtype=torch.float64)
    whole[:3, :3] = homography[0, 0]  # padded: its third row is not 0, 0, 1
    assert (invert_affine(whole) - torch.linalg.inv(whole)).abs().max() < 1e-11


def test_what_is_exact_stays_exact() -> None:
    quarter = torch.tensor([[0.0, -1.0, 0.0, 3.5], [1.0, 0.0, 0.0, -2.25], [0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 0.0, 1.0]])
    back = invert_affine(quarter)
    assert torch.equal(compose(back, quarter), torch.eye(4)) and torch.equal(compose(quarter, back), torch.eye(4))
    assert torch.equal(back[:3, 3], torch.tensor([2.25, 3.5, -0.5]))  # by hand: x = v + 2.25, y = 3.5 - u


def test_composition_equals_the_product_and_gradients_flow() -> None:
    left, right = matrices(torch.float64)
    assert (compose(left, right) - left @ right).abs().max() < 1e-11
    small = matrices(torch.float64)[:, :2].clone().requires_grad_()
    assert torch.autograd.gradcheck(invert_affine, small, atol=1e-4, rtol=1e-5)
