"""Config, no network. In: a detector's sub-configs. Out: nothing, or an error naming the slots that do not go together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from projects.memfusion.heads import SceneHead
from projects.memfusion.memory import TemporalSlot


def check_single_level(neck: Mapping[str, Any] | None, head: Mapping[str, Any] | None) -> None:
    """Memory and head work on one BEV map.

    Raises:
        ValueError: for a neck that gives several levels (an FPN), or anchors for several.
    """
    kind = str((neck or {}).get('type'))
    levels = (neck or {}).get('num_outs', 1)
    if levels != 1:
        raise ValueError(f'model.pts_neck is {kind} with num_outs={levels} levels, but memory and head work on one BEV map: '
                         'use model.pts_neck=dict(type=SECONDFPN, ...), which puts the levels into one '
                         '(model.pts_bbox_head.in_channels is then the sum of its out_channels)')
    scales = ((head or {}).get('anchor_generator') or {}).get('scales', [1])
    if len(scales) != 1:
        raise ValueError(f'model.pts_bbox_head.anchor_generator.scales={scales} is anchors for {len(scales)} levels, but there '
                         'is one BEV map: leave scales out and give every size of anchor in sizes')


def check_lidar_parts(slots: Mapping[str, Any]) -> None:
    """The LiDAR encoders come together, or there are none and the cameras see alone.

    Raises:
        ValueError: where one of them is missing, or there is neither LiDAR nor camera.
    """
    parts = ('pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone')
    missing = [name for name in parts if slots.get(name) is None]
    if missing and len(missing) < len(parts):
        raise ValueError(f'model.{" and model.".join(missing)} missing: the LiDAR branch needs {", ".join(parts)} together; '
                         'leave all out for cameras only')
    if missing and slots.get('img_backbone') is None:
        raise ValueError('the model has neither LiDAR nor cameras: set model.pts_voxel_encoder, pts_middle_encoder and '
                         'pts_backbone, or model.img_backbone')
    if missing and slots.get('pts_neck') is not None:
        raise ValueError('model.pts_neck is set, but there is no LiDAR branch for it: leave it out for cameras only')


def check_fusion(layer: Any, has_lidar: bool) -> None:
    """A fusion layer adds to the LiDAR's BEV features, or makes them of the images alone; it says which by `makes_bev`.

    Raises:
        ValueError: naming the layer, where it has no LiDAR that it needs, or one that it has no use for.
    """
    if layer is None or layer.makes_bev != has_lidar:
        return
    name = type(layer).__name__
    if has_lidar:
        raise ValueError(f"model.fusion_layer ({name}) makes BEV features of the cameras alone (query_init='learned'), but the "
                         "model has LiDAR: set model.fusion_layer.query_init='lidar', or leave out the pts_ encoders")
    raise ValueError(f'model.fusion_layer ({name}) changes the BEV features of the LiDAR, but the model has no LiDAR: set '
                     'model.pts_voxel_encoder, pts_middle_encoder and pts_backbone, or a layer that makes BEV features of the '
                     "cameras alone (BEVFormerLiteFusion, PETRv2Fusion or FastBEVFusion with query_init='learned')")


def check_task_heads(heads: Mapping[str, Any], has_images: bool) -> None:
    """Further heads have what they read, and predictions a place of their own.

    Raises:
        ValueError: naming the heads that need images where there are none, or that write the same field of the samples.
    """
    seeing = [name for name, head in heads.items() if head.needs == 'img']
    if seeing and not has_images:
        raise ValueError(f'model.task_heads {seeing} need images, but there is no model.img_backbone')
    for head in heads.values():
        same = [other for other, one in heads.items() if one.field == head.field]
        if len(same) > 1:
            raise ValueError(f'model.task_heads {same} write the same field of the samples, {head.field!r}: give each its own')


_READERS = dict(
    bev="let the head read a BEV (bev_tokens, bev or inputs.bev_channels of a query head), or a task head with needs='bev'",
    past='use a head that looks at earlier frames: PETRv2 with images.num_frames, SparseBEVHead with inputs.num_frames above 1',
    queries='use a head that asks on with remembered queries, StreamPETR with queries.num_propagated above 0')
"""What to do for what a memory hands on to be read."""


def check_readers(temporal: Any, head: SceneHead | None, task_heads: Iterable[Any]) -> None:
    """Somebody reads what the memory hands on, where both sides say what that is.

    Raises:
        ValueError: naming the memory and who could read it.
    """
    part = None if temporal is None else temporal.hands_on
    if part is None or (head is not None and head.reads is None):
        return
    read = {one.needs for one in task_heads}
    if head is not None:
        read |= {*(head.reads or ()), *(('bev',) if head.bev_channels is not None else ())}
    if part not in read:
        raise ValueError(f'model.temporal ({type(temporal).__name__}) remembers for nobody, as no head reads what it hands on: '
                         f'{_READERS[part]}; or set model.temporal=None')


def check_steps(temporal: Any, head: SceneHead | None, has_images: bool) -> None:
    """What a step calls is what it should be, and has what it reads.

    Raises:
        TypeError: where the slot `temporal` holds something else.
        ValueError: where a temporal module or head reads image features, but there are no cameras.
    """
    if temporal is not None and not isinstance(temporal, TemporalSlot):
        raise TypeError(f'model.temporal: {type(temporal).__name__} is no temporal module: derive it from '
                        'projects.memfusion.memory.TemporalSlot')
    for name, part in (('temporal', temporal), ('pts_bbox_head', head)):
        if part is not None and part.needs_levels and not has_images:
            raise ValueError(f'model.{name} ({type(part).__name__}) reads image features, but there is no model.img_backbone')
