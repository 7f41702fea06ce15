"""Converter. In: a nuScenes-format folder whose cameras have lens distortion. Out: a new one with pinhole images and their K.

Points, maps and the other tables are hard links to the files of the old folder (copies where the file system has no hard
links across the two). What says something about distorted pixels and cannot be carried over is left out and named.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from projects.geometry.distortion import parse_distortion
from projects.geometry.undistortion import undistorted_intrinsics
from projects.memfusion.data.files import map_in_order, write_pickles
from projects.memfusion.data.image_files import read_image
from projects.memfusion.data.image_undistortion import undistort_image
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.plain_pickle import load_plain_pickle

SENSOR_TABLE = 'calibrated_sensor.json'
LEFT_OUT = ('camera_labels', 'synthetic_nuscenes.json')
"""2-D labels are of distorted pixels; the generator's marker would make it take the new folder for its own."""
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class Lens:
    """One calibrated camera: (3, 3) float64 K before and after, code and coefficients of its lens model, image size."""

    img_from_cam: Tensor
    model: Tensor
    coefficients: Tensor
    hw: tuple[int, int]
    new_img_from_cam: Tensor


@dataclass
class Plan:
    """What changes: lenses by image file (path in the data set) and by sample_data token; new tables by version."""

    images: dict[str, Lens]
    by_token: dict[str, Lens]
    tables: dict[str, list[dict[str, Any]]]


def undistort_dataset(data: Path, out: Path, workers: int = 1) -> list[str]:
    """Writes `out`: `data` with undistorted images, their new K in calibrated_sensor.json and the info files, no distortion.

    `out` appears by one rename when it is whole; `data` is only read.

    Args:
        data: folder with the version folders, samples/, sweeps/ and maybe info files.
        out: new or empty folder.
        workers: processes that undistort images.

    Returns:
        Lines that say what was done and what was left out.

    Raises:
        UserError: naming the file or folder, where `data` is no such data set or has nothing to undistort, where `out`
            holds files or lies within `data`, and for images that are damaged or not of the size in the tables.
    """
    _check_folders(data, out)
    plan = read_plan(data)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', suffix='.partial', dir=out.parent))
    try:
        part.chmod(0o755)  # as any new folder; mkdtemp's is private
        counts = _link_files(data, part, plan)
        for version, rows in plan.tables.items():
            (part / version / SENSOR_TABLE).write_text(json.dumps(rows, indent=0))
        infos, left_out = _rewrite_infos(data, part, plan)
        present = sorted(name for name in plan.images if (data / name).is_file())
        map_in_order(partial(_undistort_file, data, part, plan, present), len(present), workers, 'undistorting images')
        os.replace(part, out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    left_out += [name for name in LEFT_OUT if (data / name).exists()]
    lines = [f'{out}: {len(present)} images undistorted, {counts["linked"]} other files linked, {counts["copied"]} copied, '
             f'info files: {", ".join(infos) or "none"}']
    if len(present) < len(plan.images):
        lines.append(f'{len(plan.images) - len(present)} images that the tables name are not in {data}')
    if infos:
        lines.append('the info files have no cam_instances (2-D boxes of the old pixels); tools/create_data.py makes them anew')
    return lines + [f'left out: {name}' for name in left_out]


def read_plan(data: Path) -> Plan:
    """Reads all versions' tables and works out every camera's new K."""
    plan = Plan({}, {}, {})
    folders = sorted(path.parent for path in data.glob(f'*/{SENSOR_TABLE}'))
    if not folders:
        raise UserError(f'{data} has no version folder with a {SENSOR_TABLE}: pass the root of a nuScenes-format data set')
    for folder in folders:
        sensors, records = (_read_table(folder / name) for name in (SENSOR_TABLE, 'sample_data.json'))
        distorted = {row['token']: row for row in sensors if row.get('distortion')}
        lenses: dict[str, Lens] = {}
        for record in records:
            token = record['calibrated_sensor_token']
            if token not in distorted:
                continue
            size = (int(record['height']), int(record['width']))
            if token not in lenses:
                lenses[token] = _lens(distorted[token], size, folder)
            lens = lenses[token]
            if lens.hw != size:
                raise UserError(f'{folder / SENSOR_TABLE}: sensor {token} has images of different sizes, {lens.hw} and {size}')
            plan.images[record['filename']] = plan.by_token[record['token']] = lens
        plan.tables[folder.name] = [_new_row(row, lenses.get(row['token'])) for row in sensors]
    if not plan.images:
        raise UserError(f'{data} has no camera with distortion ({SENSOR_TABLE}, key "distortion"): nothing to undistort')
    return plan


def _check_folders(data: Path, out: Path) -> None:
    if not data.is_dir():
        raise UserError(f'{data} is not a folder: pass the root of a nuScenes-format data set')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f'{out} is there already: choose a new or empty folder, nothing was written')
    if out.resolve().is_relative_to(data.resolve()):
        raise UserError(f'{out} lies within {data}: choose a folder outside it')


def _read_table(path: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f'{path} is not a readable table ({error}): unpack the tables again') from error


def _lens(row: dict[str, Any], hw: tuple[int, int], folder: Path) -> Lens:
    name = f'{row["token"]} in {folder / SENSOR_TABLE}'
    matrix = torch.tensor(row['camera_intrinsic'], dtype=torch.float64)
    if matrix.shape != (3, 3):
        raise UserError(f'sensor {name} has a distortion but no 3x3 camera_intrinsic')
    try:
        code, padded, _ = parse_distortion(row['distortion']['model'], row['distortion']['coefficients'], name)
        model, coefficients = torch.tensor(code), torch.tensor(padded, dtype=torch.float64)
        return Lens(matrix, model, coefficients, hw, undistorted_intrinsics(matrix, model, coefficients, hw))
    except (KeyError, ValueError) as error:
        raise UserError(f'sensor {name}: {error}') from error


def _new_row(row: dict[str, Any], lens: Lens | None) -> dict[str, Any]:
    """The row as it is where no image was taken with it."""
    if lens is None:
        return row
    kept = {key: value for key, value in row.items() if key != 'distortion'}
    return {**kept, 'camera_intrinsic': lens.new_img_from_cam.tolist()}


def _files(data: Path) -> Iterator[Path]:
    """All files, as paths within the data set; linked folders are followed."""
    for folder, folders, names in os.walk(data, followlinks=True):
        relative = Path(folder).relative_to(data)
        folders[:] = [name for name in folders if str(relative / name) not in LEFT_OUT]
        yield from (relative / name for name in names if str(relative / name) not in LEFT_OUT)


def _link_files(data: Path, part: Path, plan: Plan) -> dict[str, int]:
    counts = dict(linked=0, copied=0)
    for path in _files(data):
        rewritten = str(path) in plan.images or path.name == SENSOR_TABLE or _is_info_name(path)
        target = part / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if rewritten:
            continue
        try:
            os.link((data / path).resolve(), target)
            counts['linked'] += 1
        except OSError:  # another file system, or one without hard links
            shutil.copy2(data / path, target)
            counts['copied'] += 1
    return counts


def _undistort_file(data: Path, part: Path, plan: Plan, names: list[str], index: int) -> None:
    path, lens = data / names[index], plan.images[names[index]]
    image = read_image(str(path))
    if image.shape[:2] != lens.hw:
        raise UserError(f'{path} is {image.shape[1]} x {image.shape[0]}, the tables say {lens.hw[1]} x {lens.hw[0]}')
    pinhole = undistort_image(image, lens.img_from_cam, lens.model, lens.coefficients, lens.new_img_from_cam)
    done, encoded = cv2.imencode(path.suffix, pinhole, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise UserError(f'{path}: cannot write images of type {path.suffix}')
    (part / names[index]).write_bytes(encoded.tobytes())


def _is_info_name(path: Path) -> bool:
    return path.suffix == '.pkl' and path.parent == Path('.') and 'dbinfos' not in path.name


def _rewrite_infos(data: Path, part: Path, plan: Plan) -> tuple[list[str], list[str]]:
    """Names of the info files written, and of those left out because they are of another format."""
    written, left_out = [], []
    for path in sorted(path for path in data.iterdir() if _is_info_name(path.relative_to(data))):
        content = load_plain_pickle(path)
        if not isinstance(content, dict) or 'data_list' not in content:
            left_out.append(f'{path.name} (no mmdet3d v1.1 info file)')
            continue
        for info in content['data_list']:
            info.pop('cam_instances', None)
            for camera, image in info.get('images', {}).items():
                _rewrite_image(image, plan, f'{path}, sample {info.get("token")}, camera {camera}')
        write_pickles({part / path.name: content})
        written.append(path.name)
    return written, left_out


def _rewrite_image(image: dict[str, Any], plan: Plan, whose: str) -> None:
    lens = plan.by_token.get(image.get('sample_data_token', ''))
    if lens is None and image.pop('distortion', None) is not None:
        raise UserError(f'{whose}: the tables know no such distorted image; make the info file anew with tools/create_data.py')
    if lens is None:
        return
    image.pop('distortion', None)
    image['cam2img'] = lens.new_img_from_cam.tolist()
    if 'lidar2img' in image:  # some of mmdet3d's files have it
        padded = np.eye(4)
        padded[:3, :3] = lens.new_img_from_cam.numpy()
        image['lidar2img'] = (padded @ np.asarray(image['lidar2cam'], dtype=np.float64)).tolist()
