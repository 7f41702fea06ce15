"""An exported detector over a whole scene of the nano world, against the detector itself; what is written of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from mmengine.config import Config
from unit.queries.scenes import Frames

from projects.export import program
from projects.export.check import FrameDifference, box_difference
from projects.export.frames import frame_arrays
from projects.export.program import export
from projects.export.streaming import ExportedDetector
from projects.memfusion.runtime import UserError, prepare_config

# Runs the example where neither torch nor mmdet3d can be imported.
EXAMPLE = """
import runpy, sys
for name in ('torch', 'mmdet3d', 'mmengine', 'mmcv', 'mmdet'):
    sys.modules[name] = None
sys.argv = ['example', *sys.argv[1:]]
runpy.run_module('projects.export.example', run_name='__main__')
"""


@pytest.fixture(scope='module')
def frames(copying):
    return [dict(np.load(path)) for path in sorted((copying[0] / 'frames').glob('*.npz'))]


def test_the_detector_is_its_graphs_over_a_scene_and_after_its_reset(copying):
    """Two slots fill, what leaves them settles in the map of the world; the first frame comes again at the end."""
    folder, said = copying
    assert [graph['name'] for graph in said['graphs']] == ['encode', 'read', 'head', 'write']
    check, worst = said['check'], said['check']['largest_difference']
    assert check['frames'] > 3 and check['boxes_compared'] > 5 * check['frames']
    assert worst['boxes'] < 1e-3 and worst['scores'] < 1e-4 and 0 < worst['state'] < 1e-4


def test_it_remembers_until_it_is_reset(copying, frames):
    detector = ExportedDetector(copying[0])
    alone = detector(frames[2])
    detector.reset()
    found = [detector(frame) for frame in frames[:3]][-1]
    assert found['boxes'].shape != alone['boxes'].shape or np.abs(found['boxes'] - alone['boxes']).max() > 1e-3
    assert found['seen'].shape == found['scores'].shape
    detector.reset()
    np.testing.assert_array_equal(detector(frames[2])['boxes'], alone['boxes'])


def test_the_description_says_names_shapes_and_types_as_onnxruntime_sees_them(copying):
    import onnxruntime
    folder, said = copying
    for graph in said['graphs']:
        session = onnxruntime.InferenceSession(folder / graph['onnx'])
        for mine, theirs in ((graph['inputs'], session.get_inputs()), (graph['outputs'], session.get_outputs())):
            assert [tensor['name'] for tensor in mine] == [tensor.name for tensor in theirs]
            for tensor, other in zip(mine, theirs):
                kind = dict(float32='float', float64='double').get(tensor['dtype'], tensor['dtype'])
                assert other.type == f'tensor({kind})'
                assert [size for size in tensor['shape'] if size != 'V'] == [s for s in other.shape if isinstance(s, int)]


def test_the_program_of_torch_export_gives_what_the_graph_gives(copying):
    import onnxruntime
    import torch
    folder, said = copying
    head = said['graphs'][2]
    given = torch.rand(head['inputs'][0]['shape'], generator=torch.Generator().manual_seed(0))
    program = torch.export.load(folder / head['program']).module()
    other = onnxruntime.InferenceSession(folder / head['onnx']).run(['scores'], {head['inputs'][0]['name']: given.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(dict(zip([out['name'] for out in head['outputs']], program(given)))['scores'].numpy(), other,
                                   atol=1e-5)


def test_the_example_runs_the_scene_without_torch(copying, frames, tmp_path, repo):
    folder, _ = copying
    assert len((repo / 'projects/export/example.py').read_text().splitlines()) <= 80
    done = subprocess.run([sys.executable, '-c', EXAMPLE, str(folder), '--out', str(tmp_path / 'boxes.json')], cwd=repo,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    boxes = json.loads((tmp_path / 'boxes.json').read_text())
    assert len(boxes) == len(frames) == len(done.stdout.splitlines())
    detector = ExportedDetector(folder)
    for one, frame in zip(boxes, frames):
        np.testing.assert_allclose(np.reshape(one['boxes'], (-1, 9)), detector(frame)['boxes'], atol=1e-5)


def test_a_frame_without_points_passes(copying, frames):
    found = ExportedDetector(copying[0])({**frames[0], 'points': np.zeros((0, 5), np.float32)})
    assert found['boxes'].shape[1] == 9 and np.isfinite(found['boxes']).all()


def test_bad_input_is_said(copying, frames, tmp_path):
    detector = ExportedDetector(copying[0])
    with pytest.raises(ValueError, match='points have 4 columns, the detector takes 5'):
        detector({**frames[0], 'points': np.zeros((3, 4), np.float32)})
    lacks = 'the frame has no points, time_s; the detector takes points, global_from_lidar, time_s'
    with pytest.raises(ValueError, match=lacks):
        detector(dict(global_from_lidar=np.eye(4)))
    with pytest.raises(ValueError, match=r'export\.json: there is no such file; tools/export\.py CONFIG'):
        ExportedDetector(tmp_path)
    with pytest.raises(UserError, match='--frames must be at least 1, got 0'):
        export(Config(), '', '', tmp_path, frames=0)
    (tmp_path / 'export.json').write_text('{"format": 0}')
    with pytest.raises(ValueError, match='has format 0, this reads format 1: export again'):
        ExportedDetector(tmp_path)
    shutil.copy(copying[0] / 'export.json', tmp_path)
    with pytest.raises(ValueError, match=r'encode\.onnx, which export\.json names, is missing: copy the folder whole'):
        ExportedDetector(tmp_path)


def test_what_was_not_checked_is_no_export(made, tmp_path, monkeypatch):
    """An earlier export's frames and graphs go, and where the graphs differ from the detector nothing passes for an export."""
    config, checkpoint = made('lidar/')
    (tmp_path / 'frames').mkdir()
    old = [tmp_path / name for name in ('export.json', 'read.onnx', 'frames/0007.npz')]
    for path in (*old, tmp_path / 'other.onnx'):
        path.touch()

    def not_traced(graph, values, dynamic, folder):
        (folder / f'{graph.name}.onnx').touch()
        return dict(name=graph.name, onnx=f'{graph.name}.onnx', inputs=[], outputs=[]), graph.run(
            {name: values[name] for name in graph.takes})

    monkeypatch.setattr(program, 'trace', not_traced)
    monkeypatch.setattr(program, 'ExportedDetector', lambda *args, **kwargs: None)
    differing = [FrameDifference(0.0, 0.0, 0.0, 3), FrameDifference(0.5, 0.0, 0.0, 3)]
    monkeypatch.setattr(program, 'compare', lambda *args: iter(differing))
    with pytest.raises(UserError, match='frame 1 of the scene: the graphs differ from the detector by 0.5 in boxes'):
        export(prepare_config(config), str(config), str(checkpoint), tmp_path)
    assert not any(path.exists() for path in old) and (tmp_path / 'other.onnx').exists()


def test_images_of_another_rig_are_said():
    detector = ExportedDetector.__new__(ExportedDetector)
    cameras = dict(names=['FRONT', 'BACK'], height=4, width=6, rig=['img_aug'])
    detector.description, detector.state = dict(voxels=None, cameras=cameras), {}
    for images in (np.zeros((2, 3, 4, 5), np.uint8), np.zeros((2, 3, 4, 6), np.float32)):
        with pytest.raises(ValueError, match=r'the detector takes uint8 \(2, 3, 4, 6\): BGR, of the cameras FRONT, BACK'):
            detector.inputs_of(dict(images=images, img_aug=np.eye(4)))


@pytest.mark.parametrize('frames, said', [
    (Frames(), r'the images are of \d sizes, .* resize them alike in the test pipeline'),
    (Frames(masked=(1,)), r"cameras \['.*'\] are missing in a frame"),
    (Frames(bev_aug=(0.3, 1.0)), 'the test pipeline turns or mirrors the points'),
])
def test_frames_that_graphs_do_not_take_are_said(frames, said):
    with pytest.raises(UserError, match=said):
        frame_arrays(frames.of('a', 1)[0])
    with pytest.raises(UserError, match='the test set gives clips of 2 frames'):
        frame_arrays(frames.of('a', 2))


def test_a_box_that_has_moved_or_is_missing_is_found():
    one = dict(boxes=np.zeros((1, 9)), scores=np.array([0.5]), labels=np.array([3]))
    moved = {**one, 'boxes': one['boxes'] + np.eye(9)[:1] * 0.25}
    turned = {**one, 'boxes': one['boxes'] + np.eye(9)[6:7] * 2 * np.pi}
    none = {name: array[:0] for name, array in one.items()}
    assert box_difference(one, one, 0.1) == (0, 0) and box_difference(one, moved, 0.1)[0] == 0.25
    assert box_difference(one, turned, 0.1)[0] < 1e-9
    assert box_difference(one, none, 0.1) == (np.inf, np.inf) and box_difference(none, none, 0.1) == (0, 0)
    assert box_difference(one, none, 0.5) == (0, 0)  # at the threshold


@pytest.mark.parametrize('leaf, changes, said', [
    ('lidar/anchor3d', {}, 'model.pts_bbox_head=SyncAnchor3DHead: of heads, CenterHead and CMTHead are exported'),
    ('temporal/convgru', {}, 'model.temporal=ConvGRU.*: of memories, TemporalMemory and CopyMemory are exported'),
    ('temporal/xmem-longterm-gate', dict(temporal=dict(mask_source='detections')),
     'model.temporal.long_term of TemporalMemory: .*; model.temporal.mask_source=.detections.: NMS stands between'),
    ('temporal/copy', dict(test_cfg=dict(mode='window'), temporal=dict(mem_policy=dict(type='sa'))),
     r"model.temporal.mem_policy: .*; model.test_cfg.mode='window': exported memory streams"),
])
def test_what_cannot_be_exported_says_so_by_name(repo, leaf, changes, said):
    from mmdet3d.registry import MODELS

    from projects.export.support import check_exportable
    from projects.memfusion.runtime import init_registry
    init_registry()
    cfg = prepare_config(repo / f'configs/{leaf}_pillar04_second_secfpn_tiny-synthetic.py')
    cfg.merge_from_dict(dict(model=changes))
    with pytest.raises(UserError, match=f'this detector cannot be exported: .*{said}'):
        check_exportable(MODELS.build(cfg.model))
