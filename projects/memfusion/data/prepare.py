"""Stage data: the order of data preparation: check, info files of each version, ground-truth database; no frame."""

from __future__ import annotations

from pathlib import Path

from mmengine.logging import print_log

from .errors import DataError
from .nuscenes_tables import check_version_folder
from .scene_splits import read_splits


def prepare_nuscenes(root: Path, version: str, out_dir: Path, tag: str = 'nuscenes', max_sweeps: int = 10,
                     workers: int = 1, *, with_infos: bool = True, with_gt_database: bool = True,
                     lidar_channel: str | None = None, splits_file: Path | None = None, skip_missing_scenes: bool = False,
                     load_dim: int = 5) -> None:
    """Writes `{tag}_infos_{train,val,test}.pkl`, `{tag}_dbinfos_train.pkl` and `{tag}_gt_database/`.

    Args:
        root: The data set's root folder.
        version: `v1.0-mini`, `v1.0-trainval`, `v1.0-test`, or `v1.0` for trainval and then test; with `splits_file` also any
            other folder of tables.
        out_dir: Where the files go.
        tag: Prefix of the names.
        max_sweeps: LiDAR sweeps listed before each keyframe.
        workers: Number of processes.
        with_infos: Whether to write info files; without, the training infos must be there.
        with_gt_database: Whether to write the database (a test version has none, nor have splits without `train`).
        lidar_channel: Which LiDAR; None is LIDAR_TOP or the only one.
        splits_file: JSON with the scenes of `train`, `val` and `test`; None is nuScenes' own splits.
        skip_missing_scenes: Leave out scenes whose files are not there.
        load_dim: Values of a point in the point files.

    Raises:
        DataError: For what is missing or unreadable; all versions are checked before anything is written.
        BadFrameError: For a point file that cannot be used.
    """
    versions = ('v1.0-trainval', 'v1.0-test') if version == 'v1.0' else (version,)
    if max_sweeps < 0 or workers < 1:
        raise DataError(f'max_sweeps={max_sweeps}, workers={workers}: use at least 0 sweeps and 1 worker')
    if load_dim < 3:
        raise DataError(f'load_dim={load_dim}: a point has at least 3 values')
    if not with_infos and versions == ('v1.0-test',):
        raise DataError('v1.0-test has no annotations, so there is no ground-truth database to make of it')
    if splits_file is not None and version == 'v1.0':
        raise DataError('--splits is of one version: give --version v1.0-trainval, v1.0-test, v1.0-mini or your own')
    splits = None if splits_file is None else read_splits(splits_file)
    for name in versions if with_infos else ():
        check_version_folder(root, name, own=splits is not None)
    from .gt_database import NoTrainingFrames, create_gt_database
    from .nuscenes_infos import create_infos
    for name in versions if with_infos else ():
        create_infos(root, name, out_dir, tag, max_sweeps, workers, lidar_channel=lidar_channel, splits=splits,
                     skip_missing_scenes=skip_missing_scenes, load_dim=load_dim)
    if not with_gt_database or versions == ('v1.0-test',):
        return
    try:
        if with_infos and splits is not None and 'train' not in splits:
            raise NoTrainingFrames(f'{splits_file} has no train')
        create_gt_database(root, out_dir, tag, workers)
    except NoTrainingFrames as error:
        if not with_infos:
            raise
        print_log(f'no ground-truth database is made: {error}', 'current', level=30)
