"""Training: truncated back-propagation, frozen parts, frames without labels; every parameter takes part in every step."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmengine.runner.checkpoint import load_state_dict
from torch import nn

from projects.geometry import rasterize_boxes
from projects.memfusion.losses.ranks import zero_of
from projects.memfusion.structures import FrameBatch, FrameMeta, SceneTruth


@pytest.fixture
def clips(make_frame):
    """clips(batch, length): clips of small clouds that start at a scene's first frame."""

    def make(batch=1, length=3, start=0):
        return [[make_frame('abcd'[b], start + index, points=600) for index in range(length)] for b in range(batch)]

    return make


def losses_of(model, collated, given):
    data = collated(model, given, training=True)
    return model(**data, mode='loss')


def total(model, losses):
    return model.parse_losses(losses)[0]


def norm_state(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers() if 'running' in name or 'batches' in name}


def gradient_free(model):
    return [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]


# -- context frames -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('temporal', [dict(), dict(type='ConvGRUFusion', in_channels=24, hidden_dim=8)])
@pytest.mark.parametrize('grad_frames, loss_frames', [(1, 'last'), (2, 'all')])
def test_context_is_encoded_without_gradient_and_leaves_a_detached_memory(temporal, grad_frames, loss_frames, small_detector,
                                                                         collated, clips):
    """Against the same written out: context encoded in eval mode under no_grad, memory detached after each of its frames."""
    settings = dict(grad_frames=grad_frames, loss_frames=loss_frames)
    model, other = (small_detector(temporal, train_cfg=settings).train() for _ in range(2))
    given, context = clips(batch=2, length=4), 4 - grad_frames
    losses = losses_of(model, collated, given)
    total(model, losses).backward()

    early = collated(other, [clip[:context] for clip in given], training=True)
    late = collated(other, [clip[context:] for clip in given], training=True)
    other.eval()
    with torch.no_grad():
        before = other.encode(early['inputs'])
    other.train()
    after = other.encode(late['inputs'])
    state, readouts, samples = other.temporal.init_state(after.at(0)), [], []
    for t in range(4):
        part, now, length = (before, t, context) if t < context else (after, t - context, grad_frames)
        frames = (early if t < context else late)['data_samples'][now::length]
        step = FrameBatch.from_metas([FrameMeta.from_metainfo(sample.metainfo) for sample in frames], torch.device('cpu'))
        out = other.step(part.at(now), state, step, SceneTruth.of_samples(frames, torch.device('cpu')))
        state = out.state.detach() if t < context else out.state
        readouts.append(out.readout)
        samples.append(frames)
    by_clip = [samples[t][b] for b in range(2) for t in range(4)]
    expected = {}
    if 'occ_logits' in readouts[0].aux:
        truth = torch.stack([rasterize_boxes(s.gt_instances_3d.bboxes_3d.tensor[:, :7], other.grid) for s in by_clip])[:, None]
        logits = torch.stack([one.aux['occ_logits'] for one in readouts], dim=1).flatten(0, 1)
        expected.update(other.temporal.loss_occ(logits, F.adaptive_max_pool2d(truth.float(), logits.shape[-2:])))
    outputs = [one.bev for one in readouts]
    if loss_frames == 'all':
        expected.update(other.pts_bbox_head.loss([torch.stack(outputs, dim=1).flatten(0, 1)], by_clip))
    else:
        expected.update(other.pts_bbox_head.loss([outputs[-1]], samples[-1]))
    expected['loss_unread_memory'] = zero_of(other.temporal)
    total(other, expected).backward()
    assert set(losses) == set(expected)
    for name in losses:
        assert torch.as_tensor(losses[name]).item() == pytest.approx(torch.as_tensor(expected[name]).item(), abs=1e-5), name
    for (name, p), q in zip(model.named_parameters(), other.parameters()):
        assert (p.grad - q.grad).abs().max() < 1e-4 * (1 + q.grad.abs().max()), name
    for name, buffer in norm_state(model).items():
        assert torch.allclose(buffer.double(), norm_state(other)[name].double(), atol=1e-6), name


def test_context_leaves_batch_norm_as_it_was_and_gets_no_gradient(small_detector, collated, clips):
    model = small_detector(train_cfg=dict(grad_frames=1, loss_frames='last')).train()
    other = small_detector(train_cfg=dict(grad_frames=1, loss_frames='last')).train()
    given = clips(length=3)
    changed = copy.deepcopy(given)
    for frame in changed[0][:2]:
        frame['inputs']['points'] = frame['inputs']['points'] * 0.7
    seen = []
    encode = model.encode_points
    model.encode_points = lambda voxels, frames: seen.append((torch.is_grad_enabled(), model.pts_backbone.training, frames)) \
        or encode(voxels, frames)
    first = total(model, losses_of(model, collated, given))
    second = total(other, losses_of(other, collated, changed))
    assert seen == [(False, False, 2), (True, True, 1)]
    assert model.pts_backbone.training
    for name, buffer in norm_state(model).items():  # the head's differ: it sees what is remembered of the context
        assert torch.equal(buffer, norm_state(other)[name]) == ('pts_bbox_head' not in name or 'batches' in name), name
    assert not torch.equal(first, second)
    last = collated(small_detector().train(), [given[0][2:]], training=True)
    alone = small_detector().train()
    alone.encode(last['inputs'])
    statistics = norm_state(model)
    for name, buffer in norm_state(alone).items():
        if name.startswith(('pts_backbone', 'pts_neck', 'pts_voxel')):
            assert torch.allclose(buffer.double(), statistics[name].double(), atol=1e-6), name


@pytest.mark.parametrize('loss_frames', ['last', 'all'])
def test_labels_of_context_frames_count(loss_frames, small_detector, collated, clips):
    """Occupancy is learned on every frame; boxes on every frame, or on the last alone."""
    given = clips(length=3)
    without = copy.deepcopy(given)
    for frame in without[0][:2]:
        frame['data_samples'].gt_instances_3d = frame['data_samples'].gt_instances_3d[:0]
    counts, answers = [], []
    for clip in (given, without):
        model = small_detector(train_cfg=dict(grad_frames=1, loss_frames=loss_frames)).train()
        model.pts_bbox_head.register_forward_pre_hook(lambda module, inputs: counts.append(inputs[0][0].shape[0]))
        answers.append({name: torch.as_tensor(value).item() for name, value in losses_of(model, collated, clip).items()})
    changed = {name for name in answers[0] if answers[0][name] != answers[1][name]}
    assert counts == ([3, 3] if loss_frames == 'all' else [1, 1])
    assert any('occ' in name for name in changed)
    assert any('heatmap' in name for name in changed) == (loss_frames == 'all')


@pytest.mark.parametrize('temporal', [dict(), dict(type='ConvGRUFusion', in_channels=24, hidden_dim=8)])
def test_unlabelled_context_costs_no_graph(temporal, small_detector, collated, clips):
    model = small_detector(temporal, train_cfg=dict(grad_frames=1, loss_frames='last')).train()
    given = clips(length=3)
    given[0][0]['data_samples'].set_metainfo(dict(is_keyframe=False))
    step, seen = model.step, []
    model.step = lambda *args, **kwargs: seen.append(torch.is_grad_enabled()) or step(*args, **kwargs)
    total(model, losses_of(model, collated, given)).backward()
    assert seen == [False, True, True]


def test_more_gradient_than_frames_is_all_of_them(small_detector, collated, clips):
    answers = []
    for grad_frames in (None, 3, 8):
        model = small_detector(train_cfg=dict(grad_frames=grad_frames)).train()
        answers.append(total(model, losses_of(model, collated, clips())).item())
    assert len(set(answers)) == 1
    with pytest.raises(ValueError, match='grad_frames'):
        small_detector(train_cfg=dict(grad_frames=0))


def test_padding_and_context_together(small_detector, collated, clips):
    """A clip at a scene start: its padding lies in the context, beside another clip's real frames."""
    model = small_detector(train_cfg=dict(grad_frames=1, loss_frames='last')).train()
    given = clips(batch=2, length=3)
    for frame in given[0][:2]:
        frame['inputs']['points'] = frame['inputs']['points'][:0]
        frame['data_samples'].set_metainfo(dict(frame_valid=False, is_scene_start=False))
    together = losses_of(model, collated, given)
    total(model, together).backward()
    assert gradient_free(model) == []
    all_padded = [given[0]]
    model = small_detector(train_cfg=dict(grad_frames=1, loss_frames='last')).train()
    total(model, losses_of(model, collated, all_padded)).backward()
    assert gradient_free(model) == []


# -- frozen parts -----------------------------------------------------------------------------------------------------
FROZEN = ['pts_voxel_encoder', 'pts_backbone', 'pts_neck']


def test_frozen_parts_do_not_learn_and_stay_in_eval_mode(small_detector, collated, clips):
    model = small_detector(train_cfg=dict(frozen=FROZEN)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        total(model, losses_of(model, collated, clips(batch=2))).backward()
        assert gradient_free(model) == []
        optimizer.step()
    for name, value in model.state_dict().items():
        if name.startswith(tuple(f'{prefix}.' for prefix in FROZEN)):
            assert torch.equal(value, before[name]), name
        elif 'pts_bbox_head.shared_conv.bn.running_mean' in name or 'key_proj.weight' in name:
            assert not torch.equal(value, before[name]), name
    assert all(p.grad is None and not p.requires_grad for p in model.pts_backbone.parameters())
    for mode in (True, False, True):
        model.train(mode)
        assert not any(module.training for prefix in FROZEN for module in model.get_submodule(prefix).modules())
        assert model.pts_bbox_head.training == mode and model.temporal.training == mode


def test_a_part_of_a_part_can_be_frozen(small_detector):
    model = small_detector(train_cfg=dict(frozen=['temporal.network', 'pts_bbox_head.task_heads.0'])).train()
    assert not model.temporal.network.training and model.temporal.readout.training
    assert not model.pts_bbox_head.task_heads[0].training and model.pts_bbox_head.task_heads[1].training
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert all(name.startswith(('temporal.network.', 'pts_bbox_head.task_heads.0.')) for name in frozen)
    assert 'temporal.network.key_proj.weight' in frozen and len(frozen) > 20


def test_names_that_only_start_alike_are_not_frozen():
    from projects.memfusion.detectors.modes import freeze, keep_frozen_in_eval
    model = nn.ModuleDict(dict(neck=nn.Linear(1, 1), neck_too=nn.Linear(1, 1)))
    freeze(model, ['neck'])
    keep_frozen_in_eval(model, ['neck'])
    assert not model['neck'].weight.requires_grad and model['neck_too'].weight.requires_grad
    assert not model['neck'].training and model['neck_too'].training


def test_unknown_frozen_parts_are_named(small_detector):
    with pytest.raises(ValueError, match=r"train_cfg.frozen.*'backbone'.*pts_backbone"):
        small_detector(train_cfg=dict(frozen=['pts_neck', 'backbone']))


def test_finding_boxes_in_training_leaves_the_head_as_it_was(small_detector, collated, clips):
    """Masks of detections ask the head for boxes before its loss: in eval mode, without a trace in its statistics."""
    find, plain = (small_detector(dict(mask_source=source, masks=dict(score_threshold=1.0))).train()
                   for source in ('detections', 'none'))
    for model in (find, plain):
        losses_of(model, collated, clips())
    assert all(module.training for module in find.modules())
    for name, buffer in norm_state(find).items():
        assert torch.equal(buffer, norm_state(plain)[name]), name


# -- labels -----------------------------------------------------------------------------------------------------------
def unlabelled(given, which):
    given = copy.deepcopy(given)
    for clip in given:
        for t in which:
            clip[t]['data_samples'].set_metainfo(dict(is_keyframe=False))
            clip[t]['data_samples'].gt_instances_3d = clip[t]['data_samples'].gt_instances_3d[:0]
    return given


def test_frames_without_labels_have_no_losses_but_are_remembered(small_detector, collated, clips):
    model = small_detector().train()
    counts, frames = [], []
    model.pts_bbox_head.register_forward_pre_hook(lambda module, inputs: counts.append(inputs[0][0].shape[0]))
    model.temporal.loss_occ.register_forward_pre_hook(lambda module, inputs: frames.append(inputs[0].shape[0]))
    sweeps = losses_of(model, collated, unlabelled(clips(batch=2), [0, 1]))
    assert counts == [2] and frames == [2]
    last = small_detector(train_cfg=dict(loss_frames='last')).train()
    expected = losses_of(last, collated, clips(batch=2))
    for name in ('task0.loss_heatmap', 'task1.loss_bbox'):
        assert torch.as_tensor(sweeps[name]).item() == pytest.approx(torch.as_tensor(expected[name]).item(), rel=1e-4)
    total(model, sweeps).backward()
    assert gradient_free(model) == []


def test_a_batch_without_any_label_is_a_step_that_learns_nothing(small_detector, collated, clips):
    model = small_detector().train()
    loss = total(model, losses_of(model, collated, unlabelled(clips(batch=2), [0, 1, 2])))
    loss.backward()
    assert loss == 0 and gradient_free(model) == []
    assert all(p.grad.abs().max() == 0 for p in model.parameters())


def broken(frame):
    frame['inputs']['points'] = frame['inputs']['points'][:0]
    frame['data_samples'].set_metainfo(dict(frame_valid=False, is_scene_start=False))


@pytest.mark.parametrize('train_cfg', [dict(), dict(loss_frames='last'), dict(grad_frames=1, loss_frames='last')])
@pytest.mark.parametrize('temporal', [dict(), dict(type='StackFusion', in_channels=24, hidden_dim=8)])
def test_dropped_last_frames_leave_every_parameter_a_gradient(train_cfg, temporal, small_detector, collated, clips):
    """Where every last frame of a process' batch was dropped, the other processes still wait for its gradients."""
    for given in (clips(batch=2), clips(length=1)):
        for clip in given:
            broken(clip[-1])
        model = small_detector(temporal, train_cfg=train_cfg).train()
        loss = total(model, losses_of(model, collated, given))
        loss.backward()
        assert torch.isfinite(loss) and gradient_free(model) == []


def test_empty_clouds_leave_every_parameter_a_gradient(small_detector, collated, clips):
    """Frames that are there but hold no point in range; also where the whole batch is empty."""
    for count in (1, 3):
        given = clips()
        for frame in given[0][:count]:
            frame['inputs']['points'] = frame['inputs']['points'][:0]
        model = small_detector(train_cfg=dict(grad_frames=1) if count == 3 else {}).train()
        loss = total(model, losses_of(model, collated, given))
        loss.backward()
        assert torch.isfinite(loss) and gradient_free(model) == []


# -- every parameter ----------------------------------------------------------------------------------------------------
BOXES = dict(score_threshold=0.0)
VARIANTS = {
    'gate': dict(readout=dict(type='GateReadout')), 'residual': dict(), 'concat': dict(readout=dict(type='ConcatReadout')),
    'gru': dict(type='ConvGRUFusion', in_channels=24, hidden_dim=8),
    'stack': dict(type='StackFusion', in_channels=24, hidden_dim=8),
    'copy': dict(type='CopyMemory', in_channels=24, value_dim=8, key_dim=4),
    'copy world': dict(type='CopyMemory', in_channels=24, value_dim=8, num_slots=1, long_term=True),
    'log-odds': dict(readout=dict(type='LogOddsReadout')), 'truth': dict(mask_source='truth'), 'none': dict(mask_source='none'),
    'detections': dict(mask_source='detections', masks=BOXES),
    'previous': dict(mask_source='previous_detections', masks=BOXES),
    'agents': dict(mask_source='detections', masks=dict(BOXES, num_agents=3)),
    'forced': dict(masks=dict(teacher_forcing=0.5, block_dropout=0.5)),
    'long-term': dict(max_mem_frames=2, long_term=dict(min_mem_frames=1, num_prototypes=8, max_elements=16)),
    'ego': dict(ego_channels=True, motion_gate={}), 'sparse': dict(mem_every=2, top_k=4, stored_cells='observed'),
    'content only': dict(key_position=False, align='none'),
}


@pytest.mark.parametrize('name', VARIANTS)
@pytest.mark.parametrize('length', [1, 3])
def test_every_parameter_gets_a_gradient(name, length, small_detector, collated, clips):
    for alpha in (1.0, 0.0):
        model = small_detector(dict(VARIANTS[name], alpha=alpha), train_cfg=dict(loss_frames='last')).train()
        total(model, losses_of(model, collated, clips(batch=2, length=length))).backward()
        assert gradient_free(model) == []
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    if length == 3 and name not in ('none', 'gru', 'stack', 'copy', 'copy world'):
        model.temporal.alpha = 1.0
        model.zero_grad()
        total(model, losses_of(model, collated, clips(batch=2, length=3))).backward()
        assert model.temporal.network.value_encoder.shortcut.weight.grad.abs().max() > 0  # through time


@pytest.mark.parametrize('kind', ['GateReadout', 'ResidualReadout', 'ConcatReadout'])
def test_alpha_zero_is_the_plain_detector_in_every_readout(kind, small_detector, predicted, clips):
    plain, model = small_detector(None), small_detector(dict(readout=dict(type=kind), alpha=0.0))
    for name, value in plain.state_dict().items():
        value.copy_(model.state_dict()[name])
    for frame in clips(length=3)[0]:
        bev, (sample,) = predicted(model, [[frame]])
        expected, (other,) = predicted(plain, [[frame]])
        assert torch.equal(bev, expected)
        assert torch.equal(sample.pred_instances_3d.bboxes_3d.tensor, other.pred_instances_3d.bboxes_3d.tensor)
        assert torch.equal(sample.pred_instances_3d.scores_3d, other.pred_instances_3d.scores_3d)


def test_a_checkpoint_of_another_memory_is_an_error(small_detector):
    memory, gru = small_detector(), small_detector(VARIANTS['gru'])
    with pytest.raises(ValueError, match='another temporal module'):
        load_state_dict(gru, memory.state_dict())
    with pytest.raises(ValueError, match='another temporal module'):
        memory.load_state_dict(gru.state_dict())
    load_state_dict(memory, small_detector(None).state_dict())  # a plain detector can be given memory
    load_state_dict(small_detector(None), memory.state_dict())  # and a memory can be left out


@pytest.mark.parametrize('temporal', [dict(type='CopyMemory', in_channels=24, value_dim=8),
                                      dict(type='StackFusion', in_channels=24, hidden_dim=8)])
def test_leaving_out_reads_of_frames_without_loss_changes_no_loss_and_no_gradient(temporal, small_detector, collated, clips):
    given, results = clips(batch=2, length=3), []
    for lazy in (True, False):
        model = small_detector(temporal, train_cfg=dict(loss_frames='last')).train()
        reads, read = [], model.temporal.read
        model.temporal.read = lambda *args, reads=reads, read=read: reads.append(1) or read(*args)
        if not lazy:
            model.temporal.record = lambda features: None
        loss = total(model, losses_of(model, collated, given))
        loss.backward()
        assert len(reads) == (1 if lazy else 3)
        results.append([loss, *(p.grad for p in model.parameters())])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*results))
