"""A test scene for a report's player: what the detector gave is what is played; what is missing is said."""

from __future__ import annotations

import numpy as np

from projects.demos.demo_report import loss_curves, report_demo, score_tables
from projects.demos.played_scene import play_or_say, play_scene
from projects.memfusion.runtime import prepare_config
from projects.reports.player import player_data


def test_a_streamed_scene_is_played_with_boxes_gate_and_images(copying):
    config, checkpoint = copying
    scene = play_scene(prepare_config(config), checkpoint, most_frames=2)
    assert [frame.title for frame in scene.frames] == ['frame 0', 'frame 1'] and scene.gate_name == 'share that is remembered'
    first, second = scene.frames
    assert len(first.points) and len(first.truth) and first.gate.max() == 0 and second.gate.max() > 0
    assert list(first.images) == list(first.calibration.cam_names) and len(first.images) == 6
    data = player_data(scene)
    assert len(data['tiles']) == 6 and all(frame['cameras'] and frame['gate'] for frame in data['frames'])
    truth = [box for box in data['frames'][0]['boxes'] if box['kind'] == 'truth']
    assert len(truth) == len(first.truth) and {box['text'] for box in truth} <= set(scene.classes)
    # a nuScenes ring of cameras sees what stands around it
    near = np.linalg.norm(first.truth.boxes[:, :2], axis=1) > 4
    assert all(box['cameras'] for box, seen in zip(truth, near) if seen)


def test_what_cannot_be_played_is_said(copying, tmp_path):
    config, checkpoint = copying
    scene, why = play_or_say(prepare_config(config), tmp_path / 'no.pth')
    assert scene is None and 'no.pth are not here' in why
    gone = prepare_config(config, {'test_dataloader.dataset.data_root': f'{tmp_path}/'})
    scene, why = play_or_say(gone, checkpoint)
    assert scene is None and why.startswith('No scene: ') and str(tmp_path) in why


def test_the_demo_s_page(copying, tmp_path, repo):
    config, checkpoint = copying
    scene = play_scene(prepare_config(config), checkpoint, most_frames=1)
    scores = {name: dict(mAP=value, NDS=value / 2, classes=['car'], per_class=dict(car=value), num_truth=dict(car=30))
              for name, value in (('untrained', 0.0), ('trained', 0.25))}
    assert '| trained | 0.250 | 0.125 |' in score_tables(scores) and '| car | 30 | 0.000 | 0.250 |' in score_tables(scores)
    assert loss_curves(tmp_path) == {}
    log = tmp_path / '2026' / 'vis_data' / 'scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"lr": 1, "loss": 3.0, "step": 5}\n{"mAP": 1, "step": 5}\n{"loss": 2.0, "step": 10}\n')
    assert loss_curves(tmp_path) == dict(loss=([5, 10], [3.0, 2.0]))
    path = report_demo(tmp_path, repo, ['demo: mAP=0.250'], scores, scene, config, {'model.temporal.num_slots': 3})
    page = path.read_text()
    assert 'demo: mAP=0.250' in page and 'alt="losses"' in page and '<td><code>2</code></td>' not in page
    assert 'model.temporal.num_slots' in page and path.stat().st_size < 1_000_000
