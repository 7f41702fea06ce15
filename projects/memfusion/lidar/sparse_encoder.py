"""Middle encoder. In: voxel features (V, C), coordinates (V, 4). Out: BEV (B, C D, H, W). mmdet3d's, also on CPU."""

from __future__ import annotations

from typing import Any

from mmdet3d.models.middle_encoders import SparseEncoder
from mmdet3d.registry import MODELS
from spconv.pytorch import ConvAlgo
from spconv.pytorch.conv import SparseConvolution
from torch import Tensor


@MODELS.register_module()
class PortableSparseEncoder(SparseEncoder):
    """mmdet3d's SparseEncoder with spconv's native algorithm where there is no GPU.

    spconv 2's default algorithm (implicit GEMM) has no CPU kernel. Parameter names and layouts are SparseEncoder's, so
    its checkpoints load unchanged; on a GPU nothing differs.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._algorithms = [(m, m.algo) for m in self.modules() if isinstance(m, SparseConvolution)]
        if not self._algorithms:
            raise RuntimeError('PortableSparseEncoder needs spconv 2 (requirements/runtime.txt says which): mmdet3d fell '
                               "back to mmcv's sparse ops, which have no CPU path")

    def forward(self, voxel_features: Tensor, coors: Tensor, batch_size: int) -> Tensor:
        """voxel_features (V, C) float32, coors (V, 4) int32 as batch, z, y, x -> (B, C D, H, W)."""
        for module, algorithm in self._algorithms:
            module.algo = algorithm if voxel_features.is_cuda else ConvAlgo.Native
        return super().forward(voxel_features, coors, batch_size)
