"""Runtime. In: a trained model. Out: the same model with less work for inference, which cannot be trained any more.

What changes: BatchNorm is folded into the layer before it, pillar features are computed of real points only, boxes' numbers
only where the heatmap scores, and the BEV convolutions store channels last. Predictions agree to rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from types import MethodType
from typing import Any, NoReturn

import torch
from mmcv.cnn import ConvModule
from mmdet3d.models.dense_heads import CenterHead
from mmdet3d.models.detectors import MVXTwoStageDetector
from mmdet3d.models.middle_encoders import PointPillarsScatter
from mmdet3d.models.voxel_encoders.utils import PFNLayer, VFELayer
from mmdet3d.registry import HOOKS
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from projects.memfusion.heads.peak_head import PeakHead
from projects.memfusion.lidar.pillar_scatter import BatchedPillarsScatter
from projects.memfusion.lidar.real_points import ChannelsLastScatter, RealPointEncoder
from projects.memfusion.memory import LogOddsReadout

from .errors import UserError

_BEV_PARTS = ('pts_backbone', 'pts_neck', 'pts_bbox_head')


def fuse_for_inference(model: nn.Module) -> nn.Module:
    """Makes a model faster in place; its parts are replaced, so their parameters have other names and values afterwards.

    Made for CPUs. On a GPU it works too, but asks it how many points and peaks there are (twice, and once a task head).

    What cannot be made faster stays as it is: sparse convolutions, norms that are no BatchNorm, BatchNorms or convolutions
    with hooks or in several places. Training and losses raise RuntimeError from then on; parameters take no gradient.

    Args:
        model: a detector with its weights, also inside wrappers (several processes, test-time augmentation).

    Returns:
        The same model, in eval mode.
    """
    model.eval()
    _fold_batch_norms(model)
    raised = any(isinstance(module, LogOddsReadout) for module in model.modules())  # peaks are not the head's own
    for module in list(model.modules()):
        if isinstance(module, MVXTwoStageDetector):
            _replace_points(module)
        if isinstance(module, CenterHead) and not raised:
            PeakHead.put_into(module)
    for module in list(model.modules()):
        if isinstance(module, MVXTwoStageDetector):
            _store_channels_last(module)
    model.requires_grad_(False)
    for module in model.modules():
        if module is model or isinstance(module, BaseModel):
            _forbid_training(module)
    return model


# -- BatchNorm --------------------------------------------------------------------------------------------------------
def _fold_batch_norms(model: nn.Module) -> None:
    places = Counter(id(child) for parent in model.modules() for child in parent._modules.values())
    for parent in list(model.modules()):
        for name, norm_name in list(_pairs(parent)):
            layer, norm = parent.get_submodule(name), parent.get_submodule(norm_name)
            if all(places[id(part)] == 1 and not part._forward_hooks and not part._forward_pre_hooks for part in (layer, norm)):
                setattr(parent, name, _folded(layer, norm))
                setattr(parent, norm_name, nn.Identity())


def _pairs(parent: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of (convolution, BatchNorm that takes its output alone) and (linear layer, BatchNorm) directly under a module.

    Neighbours in a Sequential, `conv*` and `bn*` of the same ending (as ResNets and ConvModule name them), and the layers of
    mmdet3d's pillar networks. By these alone the order of calls is known.
    """
    children = {name: child for name, child in parent._modules.items() if child is not None}
    names = list(children)
    if isinstance(parent, nn.Sequential):
        candidates = list(zip(names, names[1:]))
    elif isinstance(parent, (PFNLayer, VFELayer)):
        candidates = [('linear', 'norm')]
    elif not isinstance(parent, ConvModule) or parent.order[:2] == ('conv', 'norm'):
        candidates = [(name, name.replace('conv', 'bn', 1)) for name in names if name.startswith('conv')]
    else:
        return
    for name, norm_name in candidates:
        layer, norm = children[name], children.get(norm_name)
        if isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.num_features == _out_features(layer):
            yield name, norm_name


def _out_features(layer: nn.Module) -> int | None:
    if isinstance(layer, _ConvTransposeNd) and layer.groups > 1:  # torch folds these wrongly
        return None
    if isinstance(layer, _ConvNd):
        return layer.out_channels
    return layer.out_features if isinstance(layer, nn.Linear) else None


def _folded(layer: nn.Module, norm: Any) -> nn.Module:
    if isinstance(layer, nn.Linear):
        return fuse_linear_bn_eval(layer, norm)
    return fuse_conv_bn_eval(layer, norm, transpose=isinstance(layer, _ConvTransposeNd))  # type: ignore[type-var]


# -- the BEV stack ----------------------------------------------------------------------------------------------------
def _replace_points(detector: Any) -> None:
    if not detector.with_pts_backbone:  # cameras only
        return
    if RealPointEncoder.replaces(detector.pts_voxel_encoder):
        detector.pts_voxel_encoder = RealPointEncoder(detector.pts_voxel_encoder)
    if type(detector.pts_middle_encoder) in (PointPillarsScatter, BatchedPillarsScatter):
        detector.pts_middle_encoder = ChannelsLastScatter(detector.pts_middle_encoder)


def _store_channels_last(detector: Any) -> None:
    """Where all weights are those of torch's own convolutions; compiled operators want them as they are."""
    for part in (getattr(detector, name, None) for name in _BEV_PARTS):
        modules = [] if part is None else list(part.modules())
        maps = [module for module in modules if any(weight.dim() == 4 for weight in module.parameters(recurse=False))]
        if all(isinstance(module, _ConvNd) for module in maps):
            for module in maps:
                if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
                    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


# -- no training ------------------------------------------------------------------------------------------------------
def _refuse(model: nn.Module, *_: Any, **__: Any) -> NoReturn:
    raise RuntimeError(f'{type(model).__name__} was fused for inference and has no losses: build it anew, from its checkpoint, '
                       'to train it')


def _train(model: nn.Module, mode: bool = True) -> nn.Module:
    if mode:
        raise RuntimeError(f'{type(model).__name__} was fused for inference and cannot be trained: build it anew, from its '
                           'checkpoint')
    return type(model).train(model, False)


def _refuse_weights(model: nn.Module, state_dict: Mapping[str, Any], prefix: str, *_: Any) -> NoReturn:
    del state_dict, prefix
    raise RuntimeError(f'{type(model).__name__} was fused for inference, so weights that were not would go under folded ones: '
                       'load them first, then fuse')


def _forbid_training(model: Any) -> None:
    model.train = MethodType(_train, model)
    model.register_load_state_dict_pre_hook(_refuse_weights)
    if hasattr(model, 'loss'):
        model.loss = MethodType(_refuse, model)


@HOOKS.register_module()
class FuseHook(Hook):
    """Fuses the model when its weights are there and testing begins; `tools/test.py --fuse` adds it."""

    def before_test(self, runner: Runner) -> None:
        """See fuse_for_inference. Raises UserError where an EMAHook would swap averaged weights in afterwards."""
        if any(isinstance(hook, EMAHook) for hook in runner.hooks):
            raise UserError('--fuse does not go with EMAHook, which swaps weights into the model after it was fused: test a '
                            "checkpoint that holds the averaged weights as the model's own, without the hook")
        fuse_for_inference(runner.model)
        runner.logger.info('Fused the model for inference')
