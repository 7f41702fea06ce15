"""Stage data: the pipeline's transforms; importing this package registers them in mmdet3d's TRANSFORMS."""

from .clip_alignment import AlignToClipEnd
from .clip_augmentation import ClipBEVAugmentation
from .loading import LoadLidarPoints, LoadLidarSweeps
from .packing import PackClipFrame

__all__ = ['AlignToClipEnd', 'ClipBEVAugmentation', 'LoadLidarPoints', 'LoadLidarSweeps', 'PackClipFrame']
