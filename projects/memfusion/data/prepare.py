"""Stage data: the order of data preparation: check, info files of each version, ground-truth database; no frame."""

from __future__ import annotations

from pathlib import Path

from .errors import DataError
from .nuscenes_tables import check_version_folder


def prepare_nuscenes(root: Path, version: str, out_dir: Path, tag: str = 'nuscenes', max_sweeps: int = 10,
                     workers: int = 1, *, with_infos: bool = True, with_gt_database: bool = True) -> None:
    """Writes `{tag}_infos_{train,val,test}.pkl`, `{tag}_dbinfos_train.pkl` and `{tag}_gt_database/`.

    Args:
        root: The data set's root folder.
        version: `v1.0-mini`, `v1.0-trainval`, `v1.0-test`, or `v1.0` for trainval and then test.
        out_dir: Where the files go.
        tag: Prefix of the names.
        max_sweeps: LiDAR sweeps listed before each keyframe.
        workers: Number of processes.
        with_infos: Whether to write info files; without, the training infos must be there.
        with_gt_database: Whether to write the database (a test version has none).

    Raises:
        DataError: For what is missing or unreadable; all versions are checked before anything is written.
        BadFrameError: For a point file that cannot be used.
    """
    versions = ('v1.0-trainval', 'v1.0-test') if version == 'v1.0' else (version,)
    if max_sweeps < 0 or workers < 1:
        raise DataError(f'max_sweeps={max_sweeps}, workers={workers}: use at least 0 sweeps and 1 worker')
    if not with_infos and versions == ('v1.0-test',):
        raise DataError('v1.0-test has no annotations, so there is no ground-truth database to make of it')
    for name in versions if with_infos else ():
        check_version_folder(root, name)
    from .gt_database import create_gt_database
    from .nuscenes_infos import create_infos
    if with_infos:
        for name in versions:
            create_infos(root, name, out_dir, tag, max_sweeps, workers)
    if with_gt_database and versions != ('v1.0-test',):
        create_gt_database(root, out_dir, tag, workers)
