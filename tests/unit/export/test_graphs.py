"""Stages as graphs, run by torch as they are traced, one after the other over a scene: they are the detector."""

from __future__ import annotations

import pytest
import torch

from projects.demos.streaming import load_detector
from projects.export.check import box_difference
from projects.export.frames import batch_of, frame_arrays
from projects.export.graphs import NEXT, STATE, graphs_of, takes_of
from projects.export.named import named_tensors, with_tensors
from projects.export.numpy_boxes import boxes_of
from projects.export.program import tensors_of
from projects.memfusion.runtime import init_registry, prepare_config

MEM_EVERY = dict(temporal=dict(mem_every=2, max_mem_frames=2, stored_cells='observed'))


@pytest.mark.parametrize('leaf, changes, names', [
    ('lidar/', {}, ['encode', 'head']),
    ('demo/xmem-gate_', {}, ['encode', 'read', 'head', 'write']),
    ('temporal/xmem-residual_', MEM_EVERY, ['encode', 'read', 'head', 'write']),
    ('fusion/futrpp_r18_', {}, ['encode', 'head']),
    ('query/cmt_r18_', {}, ['encode', 'head']),
])
@torch.no_grad()
def test_graphs_are_the_detector(made, monkeypatch, leaf, changes, names):
    from mmdet3d.registry import DATASETS

    from projects.export.description import describe
    init_registry()
    config, checkpoint = made(leaf, **changes)
    cfg = prepare_config(config)
    detector, dataset = load_detector(cfg, str(checkpoint)).cpu(), DATASETS.build(cfg.test_dataloader.dataset)
    items = [dataset[0], dataset[1], dataset[2], dataset[0]]
    wanted = [detector(**detector.data_preprocessor(batch_of(item)), mode='predict')[0].pred_instances_3d for item in items]

    monkeypatch.setattr(torch.compiler, 'is_exporting', lambda: True)  # what is asked for then is what a graph computes
    rig = detector.data_preprocessor(batch_of(items[0]))['inputs'].get('calibration')
    graphs, empty = graphs_of(detector, tensors_of(frame_arrays(items[0]), detector), rig)
    rule = describe(detector, [], tensors_of(frame_arrays(items[0]), detector), empty, [], {}, rig)['boxes']
    assert [graph.name for graph in graphs] == names
    values = {}
    for item, instances in zip(items, wanted):
        frame = frame_arrays(item)
        state = empty if frame['is_scene_start'] else {name: values[name.replace(STATE, NEXT, 1)] for name in empty}
        values = {**tensors_of(frame, detector), **state}
        for graph in graphs:
            values |= graph.run({name: values[name] for name in takes_of(graph, values)})
        found = boxes_of({name: values[name].numpy() for name in rule['arrays']}, rule)
        expected = dict(boxes=instances.bboxes_3d.tensor.numpy(), scores=instances.scores_3d.numpy(),
                        labels=instances.labels_3d.numpy())
        assert len(instances) > 3
        boxes, scores = box_difference(expected, found, rule['score_above'])
        assert boxes < 1e-3 and scores < 1e-4


def test_nested_tensors_have_names_and_come_back():
    nested = dict(a=torch.zeros(2), b=dict(c=torch.ones(3), empty=torch.zeros(0, 2)), d=None)
    names = named_tensors(nested, 'x')
    assert {name: len(tensor) for name, tensor in names.items()} == dict(x_a=2, x_b_c=3)
    doubled = with_tensors(nested, 'x', {name: tensor + 1 for name, tensor in names.items()})
    assert doubled['b']['c'].tolist() == [2, 2, 2] and doubled['b']['empty'].shape == (0, 2) and doubled['d'] is None
