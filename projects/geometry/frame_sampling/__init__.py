"""Geometry, frame sampling: which K frames of a video are used. Registry, samplers, and what tells what a frame sees."""

from .cover import Cover, lazy_cover
from .keeping import FarthestPoseKeeper, FrameKeeper, KeptFrames, SpaceAwareKeeper, UniformKeeper
from .merge_aware import MergeAwareSpaceAware, MergeAwareUniform
from .pose_distance import FrameDistance, angles_and_distances, k_centre
from .registry import FRAME_KEEPERS, FRAME_SAMPLERS, build_keeper, build_sampler
from .report import describe
from .sampler import FrameSampler
from .samplers import EfficientSampler, FarthestPoseSampler, SpaceAwareSampler, UniformSampler
from .uniform_indices import UNIFORM_FORMS
from .video import Video, Visible
from .visible import DepthMaps, FixedGrid, Frustums, PointClouds, VoxelGrid, WorldPoints, voxelise
from .voxel_sets import VoxelSets

__all__ = [
    'FRAME_KEEPERS', 'FRAME_SAMPLERS', 'UNIFORM_FORMS', 'Cover', 'DepthMaps', 'EfficientSampler', 'FarthestPoseKeeper',
    'FarthestPoseSampler', 'FixedGrid', 'FrameDistance', 'FrameKeeper', 'FrameSampler', 'Frustums', 'KeptFrames',
    'MergeAwareSpaceAware', 'MergeAwareUniform', 'PointClouds', 'SpaceAwareKeeper', 'SpaceAwareSampler', 'UniformKeeper',
    'UniformSampler', 'Video', 'Visible', 'VoxelGrid', 'VoxelSets', 'WorldPoints', 'angles_and_distances', 'build_keeper',
    'build_sampler', 'describe', 'k_centre', 'lazy_cover', 'voxelise',
]
