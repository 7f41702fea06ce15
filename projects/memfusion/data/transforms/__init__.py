"""Stage data: the pipeline's transforms; importing this package registers them in mmdet3d's TRANSFORMS."""

from .bev_rasters import RasterizePoints
from .box_points import CountBoxPoints
from .calibration_noise import CalibrationNoise
from .clip_alignment import AlignToClipEnd
from .clip_augmentation import ClipBEVAugmentation
from .image_labels import LoadImageLabels
from .image_replacement import ReplaceImages
from .loading import LoadLidarPoints, LoadLidarSweeps
from .map_rasters import RasterizeMap
from .multiview_appearance import DistortImagesPhotometric, MaskImageGrid
from .multiview_augmentation import CropImages, FlipImages, ResizeImages, RotateImages
from .multiview_loading import LoadMultiViewImages
from .multiview_undistortion import UndistortImages
from .packing import PackClipFrame
from .projected_labels import ProjectImageBoxes, ProjectLidarsegLabels
from .sensor_faults import DropCameras, DropLidar

__all__ = [
    'AlignToClipEnd', 'CalibrationNoise', 'ClipBEVAugmentation', 'CountBoxPoints', 'CropImages', 'DistortImagesPhotometric',
    'DropCameras', 'DropLidar', 'FlipImages', 'LoadImageLabels', 'LoadLidarPoints', 'LoadLidarSweeps', 'LoadMultiViewImages',
    'MaskImageGrid', 'PackClipFrame', 'ProjectImageBoxes', 'ProjectLidarsegLabels', 'RasterizeMap',
    'RasterizePoints', 'ReplaceImages', 'ResizeImages', 'RotateImages', 'UndistortImages',
]
