"""End to end: a recording is read back and holds what the tables say; unit: memory maps, sources, errors."""

from __future__ import annotations

import importlib.util
import json
import pickle
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import rerun.dataframe
import torch
from scipy.spatial.transform import Rotation
from tool_mains import main_of

from projects.demos.viewer import recording as recording_module
from projects.demos.viewer.boxes import boxes_of_results, boxes_of_set
from projects.demos.viewer.detector import memory_maps
from projects.demos.viewer.recording import SceneRecording, import_rerun
from projects.demos.viewer.results import read_results
from projects.demos.viewer.scene import read_scene
from projects.demos.viewer.sensors import cameras_of
from projects.demos.viewer.view import ViewOptions, sort_sources, view_scene
from projects.memfusion.runtime import UserError, prepare_config
from projects.memfusion.structures import MemoryState
from projects.memfusion.structures.memory_state import MemorySizes
from projects.memfusion.visualization import BoxSet, QueryRecord
from projects.memfusion.visualization.query_record import LayerLooks

SCENE = 'scene-0916'
UNIT = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])


def table(root: Path, name: str) -> dict[str, Any]:
    return {record['token']: record for record in json.loads((root / 'v1.0-mini' / f'{name}.json').read_text())}


def annotations(root: Path, tokens: list[str]) -> dict[str, list[dict[str, Any]]]:
    """By sample, as entries of a submission, straight from the tables."""
    found: dict[str, list[dict[str, Any]]] = {token: [] for token in tokens}
    for record in table(root, 'sample_annotation').values():
        if record['sample_token'] in found:
            found[record['sample_token']].append(dict(
                sample_token=record['sample_token'], translation=record['translation'], size=record['size'],
                rotation=record['rotation'], velocity=[1.0, 2.0], detection_name='car', attribute_name='',
                detection_score=0.05 if len(found[record['sample_token']]) == 1 else 0.75))
    return found


def corners_of(centre: np.ndarray, half: np.ndarray, xyzw: np.ndarray) -> np.ndarray:
    return Rotation.from_quat(xyzw).apply(UNIT * half) + centre


def column(path: Path, entity: str, component: str, index: str = 'frame') -> list[Any]:
    """One cell per row of the timeline."""
    view = rerun.dataframe.load_recording(str(path)).view(index=index, contents=entity)
    return view.select().read_all().column(f'{entity}:{component}').to_pylist()


@pytest.fixture(scope='module')
def results(nano_infos_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A submission of the second val scene that finds everything, and lacks its last frame."""
    tokens = [info['token'] for info in read_scene(nano_infos_root, SCENE).infos][:-1]
    path = tmp_path_factory.mktemp('results') / 'pred_instances_3d' / 'results_nusc.json'
    path.parent.mkdir()
    path.write_text(json.dumps(dict(meta={}, results=annotations(nano_infos_root, tokens))))
    return path


# -- the file, read back ------------------------------------------------------------------------------------------------
def test_a_recording_holds_what_the_tables_say(nano_infos_root: Path, results: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location('view', Path(__file__).parents[3] / 'tools' / 'view.py')
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    out = tmp_path / 'new' / 'scene.rrd'
    tool.main([str(results), '--out', str(out), str(nano_infos_root), '--sweeps', '2'])
    assert [path.name for path in out.parent.iterdir()] == ['scene.rrd']
    scene = read_scene(nano_infos_root, SCENE)
    read = rerun.dataframe.load_recording(str(out))
    cameras = {f'/world/cameras/{name}{part}' for name in scene.infos[0]['images'] for part in ('', '/image')}
    boxes = {f'/world/lidar/{name}{part}' for name in ('truth', 'truth/hidden', 'predictions') for part in ('', '/velocity')}
    assert {entry.entity_path for entry in read.schema().component_columns()} == {
        '/world', '/world/lidar', '/world/lidar/points', '/world/lidar/sweeps', '/world/trajectories/ego',
        '/world/trajectories/truth', *cameras, *boxes}
    truths = {token: [one for one in table(nano_infos_root, 'sample_annotation').values() if one['sample_token'] == token]
              for token in (info['token'] for info in scene.infos)}
    static = read.view(index='frame', contents='/world').select_static().read_all()
    origin_m = static.column('/world:origin_global_m').to_pylist()[0]
    turned, moved = (column(out, '/world/lidar', name) for name in ('RotationQuat', 'Translation3D'))
    parts = [column(out, '/world/lidar/truth', name) for name in ('PoseTranslation3D', 'HalfSize3D')]
    assert len(turned) == len(scene.infos) == 5
    for row, (info, entries) in enumerate(zip(scene.infos, truths.values())):
        visible = [one for one in entries if one['num_lidar_pts'] > 0]
        assert len(parts[0][row]) == len(visible) and 0 < len(visible) < len(entries)
        assert len(column(out, '/world/lidar/truth/hidden', 'HalfSize3D')[row]) == len(entries) - len(visible)
        world_from_lidar = Rotation.from_quat(turned[row][0])
        for centre, half, one in zip(*(part[row] for part in parts), visible):
            place = world_from_lidar.apply(centre) + moved[row][0] + origin_m
            np.testing.assert_allclose(place, one['translation'], atol=1e-4)
            np.testing.assert_allclose(2 * np.array(half)[[1, 0, 2]], one['size'], atol=1e-4)
        assert len(column(out, '/world/lidar/points', 'Position3D')[row]) * 20 == (
            nano_infos_root / 'samples' / 'LIDAR_TOP' / info['lidar_points']['lidar_path']).stat().st_size


def test_corners_of_truth_and_predictions(nano_infos_root: Path, results: Path, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / 'scene.rrd'
    main_of('view')([results, nano_infos_root, '--out', out])  # the first scene that has results
    said = capsys.readouterr().out.splitlines()
    scene = read_scene(nano_infos_root, SCENE)
    given = read_results(results)
    entries = [[one for one in given.get(info['token'], []) if one['detection_score'] >= 0.1] for info in scene.infos]
    assert entries[-1] == [] and said == [
        '1 of the 5 frames are not in the results: are they of this data?',
        f'{out}: scene {SCENE}, 5 frames, {sum(map(len, entries))} predicted boxes']
    names = ('PoseTranslation3D', 'HalfSize3D', 'PoseRotationQuat')
    found, truth = ([column(out, f'/world/lidar/{kind}', name) for name in names] for kind in ('predictions', 'truth'))
    turned, moved = (column(out, '/world/lidar', name) for name in ('RotationQuat', 'Translation3D'))
    origin_m = np.array(scene.infos[0]['global_from_lidar'])[:3, 3]
    for row, info in enumerate(scene.infos):
        for centre, half, xyzw, one in zip(*(part[row] or [] for part in found), entries[row], strict=True):
            corners = Rotation.from_quat(turned[row][0]).apply(corners_of(centre, np.array(half), xyzw)) + moved[row][0]
            wanted = corners_of(np.array(one['translation']), np.array(one['size'])[[1, 0, 2]] / 2,
                                np.array(one['rotation'])[[1, 2, 3, 0]])
            np.testing.assert_allclose(corners + origin_m, wanted, atol=1e-4)
        visible = [one['bbox_3d'] for one in info['instances'] if one['num_lidar_pts'] > 0]
        for centre, half, xyzw, box in zip(*(part[row] for part in truth), visible, strict=True):
            x, y, z, length, width, height, yaw = box
            front_left_top = corners_of(centre, np.array(half), xyzw)[7]
            cos, sin = np.cos(yaw), np.sin(yaw)
            np.testing.assert_allclose(front_left_top, [
                x + cos * length / 2 - sin * width / 2, y + sin * length / 2 + cos * width / 2, z + height / 2], atol=1e-4)
    assert column(out, '/world/lidar/predictions', 'Text')[0][0] == 'car 0.75'
    assert column(out, '/world/lidar/predictions', 'score')[0] == [0.75] * len(entries[0])
    stamps = column(out, '/world/cameras/CAM_FRONT', 'Translation3D', 'time')
    assert len(stamps) == 5
    trails = column(out, '/world/trajectories/ego', 'LineStrip3D')
    assert [len(strips[0]) for strips in trails] == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(trails[4][0][4], np.array(scene.infos[4]['global_from_lidar'])[:3, 3] - origin_m, atol=1e-4)


def test_a_keyframe_and_tables_without_infos(nano_root: Path, nano_infos_root: Path, tmp_path: Path) -> None:
    wanted = read_scene(nano_infos_root, SCENE)
    made = read_scene(nano_root, SCENE)
    assert [info['token'] for info in made.infos] == [info['token'] for info in wanted.infos]
    assert made.infos[2]['instances'] == wanted.infos[2]['instances'] and made.categories == wanted.categories
    folder, info = tmp_path / 'keyframe', wanted.infos[1]
    folder.mkdir()
    kept = {key: info[key] for key in ('sample_idx', 'token', 'timestamp', 'ego2global', 'images', 'lidar_points', 'instances')}
    kept['lidar_points'] = {key: info['lidar_points'][key] for key in ('num_pts_feats', 'lidar_path', 'lidar2ego')}
    kept['instances'] = [{key: one[key] for key in ('bbox_3d', 'bbox_label_3d', 'num_lidar_pts')} for one in info['instances']]
    for name, channel in [(kept['lidar_points']['lidar_path'], 'LIDAR_TOP'), *(
            (image['img_path'], camera) for camera, image in info['images'].items() if camera != 'CAM_BACK')]:
        shutil.copy(nano_root / 'samples' / channel / name, folder)
    (folder / 'keyframe.pkl').write_bytes(pickle.dumps(dict(
        metainfo=dict(info_version='1.1', version='v1.0-mini', categories=dict(car=0)), data_list=[kept])))
    summary = view_scene(sort_sources([folder]), tmp_path / 'one.rrd', options=ViewOptions(sweeps=0))
    assert (summary.scene, summary.frames) == ('keyframe', 1)
    assert len(summary.missing) == 1 and 'CAM_BACK' in summary.missing[0]
    labels = column(tmp_path / 'one.rrd', '/world/lidar/truth', 'Text')[0]
    assert labels == ['car' if one['bbox_label_3d'] == 0 else 'other' for one in info['instances'] if one['num_lidar_pts'] > 0]


def test_a_detector_shows_its_gate_and_its_memory(copying: tuple[Path, Path], tmp_path: Path) -> None:
    out, (config, checkpoint) = tmp_path / 'gate.rrd', copying
    options = ViewOptions(sweeps=0, score_thr=0.0)
    summary = view_scene(sort_sources([], prepare_config(config), str(checkpoint)), out, options=options)
    assert summary.frames == 5 and summary.boxes == sum(
        len(cell or ()) for cell in column(out, '/world/lidar/predictions', 'HalfSize3D'))
    assert [cell[0] for cell in column(out, '/memory/frames', 'Scalar')] == [1, 2, 2, 2, 2]
    buffers = column(out, '/maps/gate', 'ImageBuffer')
    gates = [np.frombuffer(bytes(buffer[0]), np.float32).reshape(32, 32) for buffer in buffers]
    assert not gates[0].any() and gates[4].any() and gates[4].max() <= 1
    held = np.frombuffer(bytes(column(out, '/maps/memory_held', 'ImageBuffer')[4][0]), np.float32)
    assert 0 < held.max() <= 4 and held.sum() > 10
    corners = column(out, '/world/lidar/gate', 'Position3D')[0]
    np.testing.assert_allclose(np.array(corners)[:, :2], [[-25.6, 25.6], [25.6, 25.6], [25.6, -25.6], [-25.6, -25.6]])


# -- parts --------------------------------------------------------------------------------------------------------------
def test_memory_lies_where_it_was_stored() -> None:
    """Two slots of 4 x 6 cells of 1 m; the older one was written a metre further back (x), and lies a column lower now."""
    state = MemoryState.empty(1, MemorySizes((4, 6), 1, 1, 1, 2, long_term=3), torch.zeros(1))
    cells = torch.zeros(1, 2, 4, 6, dtype=torch.bool)
    cells[0, 0, 1, 3] = cells[0, 0, 2, 0] = cells[0, 1, 1, 2] = True
    usage, back = torch.zeros(1, 2, 4, 6), torch.eye(4, dtype=torch.float64)
    usage[0, 0, 1, 3], usage[0, 1, 1, 2], back[0, 3] = 0.9, 0.2, -1.0
    poses = torch.stack([back, torch.eye(4, dtype=torch.float64)])[None]
    state = replace(state, cell_valid=cells, slot_valid=torch.tensor([[True, True]]), usage=usage,
                    life=torch.tensor([[3.0, 1.0]]), slot_global_from_bev=poses)
    maps = memory_maps(state, [0, 0, -5, 6, 4, 3])
    held, used = np.zeros((4, 6)), np.zeros((4, 6))
    held[1, 2], used[1, 2] = 2, 0.9 / 3 + 0.2  # the cell at column 0 left the map
    np.testing.assert_allclose(maps['memory_held'], held)
    np.testing.assert_allclose(maps['memory_usage'], used, atol=1e-6)
    assert memory_maps(replace(state, slot_valid=torch.tensor([[False, False]])), [0, 0, -5, 6, 4, 3])['memory_held'].sum() == 0
    short = MemoryState.empty(1, MemorySizes((4, 6), 1, 1, 1, 2), torch.zeros(1))
    assert 'memory_usage' not in memory_maps(short, [0, 0, -5, 6, 4, 3])  # nobody counts it


def test_queries_look_where_they_are_said_to(tmp_path: Path) -> None:
    uv_px = np.full((1, 2, 2, 2), np.nan)
    uv_px[0, 1, 0] = 10.0, 20.0
    looks = LayerLooks(np.arange(12.0).reshape(2, 2, 3), uv_px, None, None, None)
    rig: Any = SimpleNamespace(cam_names=('CAM',))
    record = QueryRecord(np.arange(27.0).reshape(1, 3, 9), np.array([0.1, 0.9, 0.5]), np.zeros(3, int), np.array([1, 2]),
                         (looks,), rig)
    written = SceneRecording(tmp_path / 'q.rrd', np.zeros(3), None)
    camera: Any = SimpleNamespace(bent=False)
    written.begin(0, 1.0, np.eye(4))
    written.queries(record, dict(CAM=camera))
    written.close()
    assert column(tmp_path / 'q.rrd', '/world/lidar/queries/samples', 'Position3D')[0] == looks.points_m.reshape(-1, 3).tolist()
    assert len(set(column(tmp_path / 'q.rrd', '/world/lidar/queries/samples', 'Color')[0])) == 2
    assert len(column(tmp_path / 'q.rrd', '/world/lidar/queries/ends', 'Position3D')[0]) == 3
    assert column(tmp_path / 'q.rrd', '/world/cameras/CAM/queries', 'Position2D')[0] == [[10.5, 20.5]]


def test_futures_lie_on_the_ground(tmp_path: Path) -> None:
    written = SceneRecording(tmp_path / 'f.rrd', np.array([100.0, 200.0, 5.0]), None)
    pose = np.eye(4)
    pose[:3, 3] = 103.0, 200.0, 6.84
    written.begin(0, 1.0, pose)
    written.futures(np.array([[[[110.0, 201.0], [112.0, 202.0]], [[110.0, 199.0], [112.0, 198.0]]]]), np.array([[0.8, 0.2]]))
    written.close()
    strips = np.array(column(tmp_path / 'f.rrd', '/world/trajectories/futures', 'LineStrip3D')[0])
    np.testing.assert_allclose(strips, [[[10, 1, 0], [12, 2, 0]], [[10, -1, 0], [12, -2, 0]]], atol=1e-5)


def test_a_bent_lens_is_straightened(nano_infos_root: Path) -> None:
    info = read_scene(nano_infos_root, SCENE).infos[0]
    plain, _ = cameras_of(info, nano_infos_root)
    images = {**info['images'], 'CAM_FRONT': {**info['images']['CAM_FRONT'], 'distortion': dict(
        model='radtan', coefficients=[-0.3, 0.08, 0.0, 0.0, 0.0])}}
    bent, _ = cameras_of({**info, 'images': images}, nano_infos_root)
    assert [name for name, camera in bent.items() if camera.bent] == ['CAM_FRONT'] and not any(c.bent for c in plain.values())
    assert bent['CAM_BACK'].content == plain['CAM_BACK'].content and bent['CAM_FRONT'].content != plain['CAM_FRONT'].content
    straight = cv2.imdecode(np.frombuffer(bent['CAM_FRONT'].content, np.uint8), cv2.IMREAD_COLOR)
    assert straight.shape[:2] == bent['CAM_FRONT'].hw == plain['CAM_FRONT'].hw
    assert (bent['CAM_FRONT'].img_from_cam != plain['CAM_FRONT'].img_from_cam).any()


def test_boxes_without_anything() -> None:
    for boxes in (boxes_of_results([], np.eye(4)), boxes_of_set(BoxSet(np.zeros((0, 7)), [], []), ['car'])):
        assert len(boxes) == 0 and boxes.labels == []
        assert boxes.centre_m.shape == (0, 3) and boxes.quaternion_xyzw.shape == (0, 4)
    half_turned = boxes_of_set(BoxSet([[1.0, 2, 3, 4, 2, 1, np.pi]], [0], [0.5], [0.4]), ['car'])
    np.testing.assert_allclose(half_turned.centre_m, [[1, 2, 3.5]])
    assert half_turned.hidden.all() and half_turned.labels == ['car 0.50'] and np.isnan(half_turned.velocity_mps[0, 0])


# -- errors -------------------------------------------------------------------------------------------------------------
def test_what_cannot_be_shown_is_named(nano_infos_root: Path, results: Path, tmp_path: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / 'empty'
    empty.mkdir()
    text = tmp_path / 'a.txt'
    text.write_text('x')
    broken = tmp_path / 'broken.json'
    broken.write_text('{')
    other = tmp_path / 'other.json'
    other.write_text('{"mAP": 1}')
    lacking = tmp_path / 'lacking.json'
    lacking.write_text(json.dumps(dict(results=dict(t=[dict(translation=[0, 0, 0], size=[1, 1, 1], rotation=[1, 0, 0, 0])]))))
    for paths, words in (
            ([], 'nothing to show'), ([tmp_path / 'none'], 'does not exist'), ([empty], 'holds neither data .* nor results'),
            ([text], 'neither an info file .* nor results'), ([nano_infos_root] * 2, 'are both data'),
            ([results, results], 'are both results'), ([results], 'no config of the run lies beside it'),
            ([nano_infos_root, broken], 'no JSON file'), ([nano_infos_root, other], 'no nuScenes submission'),
            ([nano_infos_root, lacking], 'a box of sample t has no name')):
        with pytest.raises(UserError, match=words):
            sort_sources(paths)
    with pytest.raises(UserError, match='--config and --checkpoint go together'):
        sort_sources([nano_infos_root], None, 'x.pth')
    with pytest.raises(UserError, match='--scene scene-0917: .* has no scene of this name .*scene-0916'):
        read_scene(nano_infos_root, 'scene-0917')
    with pytest.raises(UserError, match='the results are of none of the 4 scenes'):
        read_scene(nano_infos_root, None, ['unknown'])
    with pytest.raises(UserError, match='the results are of other scenes than scene-0916'):
        read_scene(nano_infos_root, SCENE, ['unknown'])
    with pytest.raises(UserError, match='--sweeps must be 0 or more'):
        ViewOptions(sweeps=-1)
    monkeypatch.setitem(sys.modules, 'rerun', None)
    with pytest.raises(UserError, match=recording_module.PIP):
        import_rerun()


def test_results_alone_find_their_data(nano_infos_root: Path, results: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'run' / 'score' / 'pred_instances_3d'
    folder.mkdir(parents=True)
    shutil.copy(results, folder)
    (tmp_path / 'run' / 'config.py').write_text(
        f"test_dataloader = dict(dataset=dict(data_root='{nano_infos_root}/', ann_file='nuscenes_infos_val.pkl'))")
    sources = sort_sources([tmp_path / 'run'])
    assert sources.data == nano_infos_root / 'nuscenes_infos_val.pkl' and sources.cfg is None
    assert read_scene(sources.data, None, sources.results.keys()).name == SCENE
    shutil.copy(results, tmp_path / 'run' / 'results_nusc.json')
    with pytest.raises(UserError, match='holds 2 result files'):
        sort_sources([tmp_path / 'run'])
