"""Spatial: geometry sources. In: frames of a clip. Out: what VGGT or Depth Anything 3 makes of them, where it is installed.

Neither is among the requirements. Their weights are read from local files.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from projects.common.safe_tensors import load_listed
from projects.spatial_mllm.model.poses import FramePoses, unit_intrinsics

from .source import Geometry, register_source, unproject

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def import_or_say(module: str, package: str) -> Any:
    """The module; ImportError that says what to do where it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f'{package} is not installed ({error}): docs/spatial_mllm.md says how to install it; or make the '
                          'geometry elsewhere and use PrecomputedGeometry') from error


def load_weights(network: torch.nn.Module, path: str | Path) -> None:
    """A local safetensors or torch file into the network, all names; `model.` before them is dropped.

    Raises:
        FileNotFoundError: there is no such file.
        RuntimeError: names or shapes that do not fit.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path}: no such weights')
    state: Any = load_file(path) if str(path).endswith('.safetensors') else load_listed(path, (), 'cpu')
    state = state.get('model', state)
    network.load_state_dict({name.removeprefix('model.'): value for name, value in state.items()})


def padded_affine(upper: Tensor) -> Tensor:
    """(F, 3 or 4, 4) -> (F, 4, 4)."""
    if upper.shape[1] == 4:
        return upper
    return torch.cat([upper, upper.new_tensor([0, 0, 0, 1]).expand(len(upper), 1, 4)], dim=1)


class _Network:
    """Runs a network over all frames of a clip at once, without gradients."""

    needs: tuple[str, ...] = ()

    def __init__(self, network: Any, weights: str | None, device: str) -> None:
        if weights is not None:
            load_weights(network, weights)
        self.network: Any = network.to(device).eval()
        self.device = device

    @torch.no_grad()
    def __call__(self, frames: Tensor, known: Any, grid_hw: tuple[int, int]) -> Geometry:
        """See GeometrySource; sides of the frames must divide by 14, as those of Qwen2.5-VL do."""
        height, width = frames.shape[1:3]
        if height % 14 or width % 14:
            raise ValueError(f'frames of {height} x {width} pixels do not divide into patches of 14')
        images = frames.to(self.device).permute(0, 3, 1, 2).float() / 255
        found = self._seen(images, (height, width))
        tokens = found.tokens
        if tokens is not None and tokens.shape[1] != grid_hw[0] * grid_hw[1]:
            raise ValueError(f'the network has {tokens.shape[1]} patches a frame, the model {grid_hw[0]} x {grid_hw[1]}')
        return found

    def _seen(self, images: Tensor, image_hw: tuple[int, int]) -> Geometry:
        raise NotImplementedError


@register_source
class VGGTGeometry(_Network):
    """VGGT (Wang et al., 2025), package `vggt`.

    Args:
        weights: local file; None: random, for trying out.
        layer: of the aggregator whose tokens are taken.
        device: where it runs.
        settings: of the network's constructor, in place of the published.
    """

    def __init__(self, weights: str | None, layer: int = -1, device: str = 'cpu', settings: dict | None = None) -> None:
        package = import_or_say('vggt.models.vggt', 'vggt')
        self.decode = import_or_say('vggt.utils.pose_enc', 'vggt').pose_encoding_to_extri_intri
        self.layer = layer
        super().__init__(package.VGGT(**(settings or {})), weights, device)

    def _seen(self, images: Tensor, image_hw: tuple[int, int]) -> Geometry:
        layers, first = self.network.aggregator(images[None])
        extrinsics, intrinsics = self.decode(self.network.camera_head(layers)[-1], image_hw)
        points, confidence = self.network.point_head(layers, images=images[None], patch_start_idx=first)
        poses = FramePoses(padded_affine(extrinsics[0]).double().cpu(), unit_intrinsics(intrinsics[0], image_hw).cpu())
        tokens = layers[self.layer][0].float().cpu()
        return Geometry(poses, tokens[:, first:], tokens[:, 0], points[0].float().cpu(), confidence[0].float().cpu())


@register_source
class DepthAnything3Geometry(_Network):
    """Depth Anything 3 (2025), package `depth-anything-3` 0.1.1; world points are unprojected depth.

    Args:
        weights: local file; None: random, for trying out.
        config: name of one of the package's configs.
        layer: of the backbone whose tokens are taken.
        device: where it runs.
    """

    def __init__(self, weights: str | None, config: str = 'da3-large', layer: int = -1, device: str = 'cpu') -> None:
        package = import_or_say('depth_anything_3.cfg', 'depth-anything-3')
        network = package.create_object(package.load_config(f'depth_anything_3.configs.{config}'))
        layers = list(network.backbone.out_layers) if hasattr(network.backbone, 'out_layers') else []
        self.layer = layers[layer] if layers and layer < 0 else layer
        super().__init__(network, weights, device)

    def _seen(self, images: Tensor, image_hw: tuple[int, int]) -> Geometry:
        mean, std = (torch.tensor(part, device=images.device)[:, None, None] for part in _IMAGENET)
        found = self.network(((images - mean) / std)[None], export_feat_layers=[self.layer])
        extrinsics = padded_affine(found.extrinsics[0].double().cpu())
        poses = FramePoses(extrinsics, unit_intrinsics(found.intrinsics[0], image_hw).cpu())
        tokens = found.aux[f'feat_layer_{self.layer}'][0].flatten(1, 2).float().cpu()
        depth = found.depth[0].float().cpu()
        confidence = found.depth_conf[0].float().cpu()
        return Geometry(poses, tokens, None, unproject(depth, poses), confidence)
