"""Stage data: checks at construction that a pipeline can load clips. In: its config. Out: nothing, or an error with why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmdet3d.datasets.transforms import (
    GlobalRotScaleTrans,
    LoadAnnotations3D,
    LoadPointsFromFile,
    LoadPointsFromMultiSweeps,
    ObjectNoise,
    ObjectRangeFilter,
    ObjectSample,
    Pack3DDetInputs,
    PointShuffle,
    PointsRangeFilter,
    RandomFlip3D,
)
from mmdet3d.registry import TRANSFORMS

from .transforms.calibration_noise import CalibrationNoise
from .transforms.clip_alignment import AlignToClipEnd
from .transforms.clip_augmentation import ClipBEVAugmentation
from .transforms.image_labels import LoadImageLabels
from .transforms.image_replacement import ReplaceImages
from .transforms.loading import LoadLidarSweeps
from .transforms.multiview_appearance import DistortImagesPhotometric, MaskImageGrid
from .transforms.multiview_augmentation import MultiViewTransform
from .transforms.multiview_loading import LoadMultiViewImages
from .transforms.multiview_undistortion import UndistortImages
from .transforms.packing import PackClipFrame
from .transforms.projected_labels import ProjectImageBoxes, ProjectLidarsegLabels
from .transforms.sensor_faults import DropCameras, DropLidar

Pipeline = Sequence[Any]
_PER_FRAME_DRAWS = (GlobalRotScaleTrans, RandomFlip3D, ObjectNoise)
_LOAD_POINTS = (LoadPointsFromFile, LoadPointsFromMultiSweeps)
_LOAD_WHAT_IS_MOVED = (*_LOAD_POINTS, LoadAnnotations3D)
_AFTER_ALIGNMENT = (ClipBEVAugmentation, PointsRangeFilter, ObjectRangeFilter, Pack3DDetInputs, *_PER_FRAME_DRAWS)

_NEEDS_IMAGES = (UndistortImages, MultiViewTransform, DistortImagesPhotometric, MaskImageGrid, DropCameras, CalibrationNoise,
                 ReplaceImages, LoadImageLabels, ProjectImageBoxes, ProjectLidarsegLabels)
_NEEDS_POINTS = (*_LOAD_POINTS, PointsRangeFilter, PointShuffle, ObjectSample, DropLidar, ProjectLidarsegLabels)


def check_same_for_all_frames(pipeline: Pipeline) -> None:
    """Raises ValueError for transforms that would treat the frames of one clip differently."""
    for kind in transform_types(pipeline):
        if issubclass(kind, ObjectSample):
            raise ValueError(f'pipeline has {kind.__name__} (GT-paste): it pastes other objects into every frame of a clip, '
                             'which then appear and vanish instead of moving; leave it out, or set seq_len=1')
        if issubclass(kind, _PER_FRAME_DRAWS):
            raise ValueError(f'pipeline has {kind.__name__}: it draws anew for every frame, so that frames of one clip no '
                             'longer fit together; use ClipBEVAugmentation (one draw for the whole clip), or set seq_len=1')


def check_sweep_loader(pipeline: Pipeline, num_sweeps: int | None, sweep_rate: bool) -> None:
    """Raises ValueError where `num_sweeps`, sweep rate or DropLidar do not go with the pipeline's loaders."""
    kinds = list(transform_types(pipeline))
    ours = any(issubclass(kind, LoadLidarSweeps) for kind in kinds)
    if num_sweeps is not None and not ours:
        raise ValueError(f'num_sweeps={num_sweeps} needs a LoadLidarSweeps in the pipeline, after LoadLidarPoints')
    for number, kind in enumerate(kinds):
        if issubclass(kind, _LOAD_POINTS) and DropLidar in kinds[:number]:
            raise ValueError(f'DropLidar must come after {kind.__name__} in the pipeline, which loads points again')
        if sweep_rate and issubclass(kind, LoadPointsFromMultiSweeps) and not issubclass(kind, LoadLidarSweeps):
            raise ValueError(f"frame_rate='sweep' cannot go with {kind.__name__}, which knows sweeps relative to keyframes "
                             'only: use LoadLidarSweeps')


def check_points(pipeline: Pipeline, use_lidar: bool, sweep_rate: bool) -> None:
    """Raises ValueError where points are needed and there are none, or loaded only after the rest of the frame was augmented.

    Args:
        pipeline: its config.
        use_lidar: `modality['use_lidar']`, with which mmdet3d's data sets complete the point files' paths.
        sweep_rate: whether frames between keyframes are asked for.
    """
    kinds = list(transform_types(pipeline))
    asking = [kind.__name__ for kind in kinds if issubclass(kind, _NEEDS_POINTS)]
    if asking and not use_lidar:
        raise ValueError(f'pipeline has {", ".join(asking)}, but modality.use_lidar=False says that there are no points: set '
                         'use_lidar=True, with the folder in data_prefix.pts (points that are loaded need not be packed), or '
                         'leave them out')
    if sweep_rate and not use_lidar:
        raise ValueError("frame_rate='sweep' cannot go with modality.use_lidar=False: frames between keyframes have no images, "
                         "so nothing would be in them; use frame_rate='keyframe'")
    _check_after_loaders(kinds, ClipBEVAugmentation)


def check_alignment(pipeline: Pipeline) -> None:
    """Raises ValueError unless AlignToClipEnd comes after what loads and before what augments, filters or packs."""
    kinds = list(transform_types(pipeline))
    places = [number for number, kind in enumerate(kinds) if issubclass(kind, AlignToClipEnd)]
    if len(places) != 1:
        raise ValueError(f"align='loader' needs AlignToClipEnd once in the pipeline, it is there {len(places)} times: add "
                         "dict(type='AlignToClipEnd') after LoadAnnotations3D (or the last loader)")
    _check_after_loaders(kinds, AlignToClipEnd)
    for kind in kinds[:places[0]]:
        if issubclass(kind, _AFTER_ALIGNMENT):
            raise ValueError(f'AlignToClipEnd must come before {kind.__name__} in the pipeline: augmentation and ranges are '
                             "those of the clip's last frame")


def _check_after_loaders(kinds: Sequence[type], mover: type) -> None:
    for number, kind in enumerate(kinds):
        if issubclass(kind, _LOAD_WHAT_IS_MOVED) and any(issubclass(earlier, mover) for earlier in kinds[:number]):
            raise ValueError(f'{mover.__name__} must come after {kind.__name__} in the pipeline: it moves what is loaded')


def check_cameras(pipeline: Pipeline, use_camera: bool) -> bool:
    """Whether the pipeline loads images; raises ValueError where it cannot do so rightly.

    Args:
        pipeline: its config.
        use_camera: `modality['use_camera']`, with which mmdet3d's data sets complete the images' paths.
    """
    kinds = list(transform_types(pipeline))
    places = [number for number, kind in enumerate(kinds) if issubclass(kind, LoadMultiViewImages)]
    first = places[0] if places else len(kinds)
    early = [kind.__name__ for kind in kinds[:first] if issubclass(kind, _NEEDS_IMAGES)]
    if early:
        raise ValueError(f'{", ".join(early)} must come after LoadMultiViewImages in the pipeline: it needs what that loads')
    if not places:
        return False
    if len(places) > 1:
        raise ValueError(f'the pipeline has LoadMultiViewImages {len(places)} times: the last would undo what is between')
    if not use_camera:
        raise ValueError("LoadMultiViewImages needs modality=dict(use_camera=True) in the data set, with the cameras' folders "
                         "in data_prefix (CAM_FRONT='samples/CAM_FRONT', ...)")
    for kind in kinds:
        if issubclass(kind, (ObjectSample, *_PER_FRAME_DRAWS)):
            raise ValueError(f'pipeline has {kind.__name__} and LoadMultiViewImages: it moves points and leaves no bev_aug '
                             'that would take the cameras along (and its pasted objects are in no image): use '
                             'ClipBEVAugmentation')
        if issubclass(kind, Pack3DDetInputs) and not issubclass(kind, PackClipFrame):
            raise ValueError(f'pipeline has {kind.__name__} and LoadMultiViewImages: it packs no cameras, use PackClipFrame')
    return True


def transform_types(pipeline: Pipeline) -> Iterator[type]:
    """The classes of a pipeline's transforms, those inside wrappers included; unknown names are left to the builder."""
    for step in pipeline:
        if isinstance(step, Mapping):
            kind = step['type'] if 'type' in step else None
            found = TRANSFORMS.get(kind) if isinstance(kind, str) else kind
            inner = step.get('transforms', ())
        elif isinstance(step, (list, tuple)):
            found, inner = None, step
        else:
            found, inner = type(step), getattr(step, 'transforms', ())
        if isinstance(found, type):
            yield found
        yield from transform_types(inner if isinstance(inner, (list, tuple)) else [inner])
