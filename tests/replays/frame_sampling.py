"""Replays frame sampling: the space-aware choice of Spatial-MLLM, and the published forms of uniform sampling. All exact."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from replays.compare import difference

from projects.geometry.frame_sampling import UNIFORM_FORMS, Video, WorldPoints, build_sampler, voxelise


def replay(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    """Frames are chosen on the host, whatever the device."""
    del device
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    cases = [name.removesuffix('_world_points') for name in arrays if name.endswith('_world_points')]
    ours: dict[str, np.ndarray] = {}
    for case in cases:
        ours |= {f'{case}_{name}': value for name, value in space_aware(arrays, case).items()}
    inputs = {'pairs', *(f'{case}_{name}' for case in cases for name in ('world_points', 'conf'))}
    for name in arrays:
        if match := re.fullmatch(f'({"|".join(UNIFORM_FORMS)})_(\\d+)_(\\d+)', name):
            ours[name] = UNIFORM_FORMS[match[1]](int(match[2]), int(match[3]))
    for num_frames, count in arrays.get('pairs', np.zeros((0, 2), int)):
        wanted = {f'{form}_{num_frames}_{count}' for form in UNIFORM_FORMS if form != 'round' or num_frames >= count}
        if missing := wanted - set(arrays):
            raise ValueError(f'arrays missing: {sorted(missing)}')
    if unknown := set(arrays) - set(ours) - inputs:
        raise ValueError(f'arrays that nothing here compares: {sorted(unknown)}')
    if not ours:
        raise ValueError('it holds neither a case of space-aware sampling nor uniform samples')
    return [(name, difference(ours[name], arrays[name])) for name in arrays if name in ours]


def space_aware(arrays: dict[str, np.ndarray], case: str) -> dict[str, np.ndarray]:
    """All that the file may say of a case."""
    points, confidence = arrays[f'{case}_world_points'], arrays[f'{case}_conf']
    sets, grid = voxelise(points, confidence)
    found = dict(threshold=grid.threshold, bbox=grid.bounds_m, voxel=grid.voxel_m, voxel_count=sets.counts,
                 union=sets.union_count())
    video = Video(len(points), case, visible=WorldPoints(points, confidence))
    for count in {int(match[1]) for name in arrays if (match := re.fullmatch(f'{re.escape(case)}_k(\\d+)(_\\w+)?', name))}:
        # The file's frames are the candidates, however many; published code asks for no more than there are.
        settings = dict(type='sa', num_frames=min(count, len(points)), pool=len(points))
        frames, report = build_sampler(settings)(video)
        found |= {f'k{count}': frames, f'k{count}_order': report['order'], f'k{count}_gain': report['gains']}
    return {name: np.asarray(value) for name, value in found.items()}
