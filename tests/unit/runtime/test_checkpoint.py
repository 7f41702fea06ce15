"""Checkpoints load safely, wrong ones are refused with a reason, and a model takes only its own."""

import os
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from projects.memfusion.runtime import UserError, check_architecture, install_safe_loading, load_weights, safe_load

needs_allow_list = pytest.mark.skipif(not hasattr(torch.serialization, 'add_safe_globals'), reason='torch before 2.4')


class Payload:
    """A pickle that runs a command when it is read without protection."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)


class Called:
    """A pickle that calls what it names."""

    state = None

    def __init__(self, function, arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments, self.state


class GetattrPayload:
    """Tries to reach more through the getattr that HistoryBuffer's pickle needs."""

    def __init__(self, owner, name):
        self.owner, self.name = owner, name

    def __reduce__(self):
        return getattr, (self.owner, self.name)


def mmengine_checkpoint():
    hub = MessageHub('test_checkpoint')
    for value in (3.0, 1.0, 2.0):
        hub.update_scalar('train/loss', value)
    hub.update_info('best_score', np.float64(0.25))
    hub.update_info('counts', np.arange(3))
    hub.update_info('name', np.array(['a', 'bc']))
    meta = dict(epoch=2, iter=10, seed=0, cfg='a = 1\n', dataset_meta=dict(classes=('car',), extra=ConfigDict(a=1)))
    return dict(meta=meta, state_dict=nn.Linear(2, 3).state_dict(), message_hub=hub.state_dict())


@needs_allow_list
def test_mmengine_checkpoint_loads_safely_with_its_log(tmp_path):
    saved = mmengine_checkpoint()
    torch.save(saved, tmp_path / 'epoch_2.pth')
    loaded = safe_load(tmp_path / 'epoch_2.pth')
    buffer = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(buffer, HistoryBuffer)
    assert (buffer.min(), buffer.max(), buffer.current(), buffer.mean()) == (1.0, 3.0, 2.0, 2.0)
    assert buffer.statistics('max', 2) == 2.0
    assert loaded['meta'] == saved['meta']
    info = loaded['message_hub']['runtime_info']
    assert info['best_score'] == 0.25 and info['counts'].tolist() == [0, 1, 2] and info['name'].tolist() == ['a', 'bc']
    assert torch.equal(loaded['state_dict']['weight'], saved['state_dict']['weight'])


SCHEDULERS = [
    dict(type='LinearLR', start_factor=0.1), dict(type='CosineAnnealingLR', T_max=5), dict(type='MultiStepLR', milestones=[2]),
    dict(type='OneCycleLR', eta_max=0.1, total_steps=9), dict(type='PolyLR', eta_min=0.0),
    dict(type='OneCycleLR', eta_max=0.1, total_steps=9, anneal_strategy='linear'),
    dict(type='CosineRestartLR', periods=[2, 3], restart_weights=[1, 1], eta_min=0.0),
    dict(type='ExponentialLR', gamma=0.9),
    dict(type='CosineAnnealingMomentum', T_max=5), dict(type='StepLR', step_size=2), dict(type='ConstantLR'),
]


@needs_allow_list
@pytest.mark.parametrize('scheduler', SCHEDULERS, ids=lambda s: s['type'])
def test_state_of_every_scheduler_loads_safely(tmp_path, scheduler):
    optimizer = torch.optim.AdamW(nn.Linear(2, 2).parameters(), lr=0.1)
    built = PARAM_SCHEDULERS.build(dict(scheduler), default_args=dict(optimizer=optimizer))
    optimizer.step()
    built.step()
    torch.save(dict(state_dict={}, optimizer=optimizer.state_dict(), param_schedulers=[built.state_dict()]),
               tmp_path / 'epoch_1.pth')
    loaded = safe_load(tmp_path / 'epoch_1.pth')['param_schedulers'][0]
    assert loaded == built.state_dict()
    fresh = PARAM_SCHEDULERS.build(dict(scheduler), default_args=dict(optimizer=optimizer))
    fresh.load_state_dict(loaded)
    fresh.step()


@needs_allow_list
def test_schedulers_may_be_named_but_not_built(tmp_path):
    torch.save(dict(a=Called(OneCycleParamScheduler, (1, 2))), tmp_path / 'evil.pth')
    with pytest.raises(UserError, match='was refused.*OneCycle'):
        safe_load(tmp_path / 'evil.pth')


@needs_allow_list
def test_installed_loader_serves_mmengine(tmp_path):
    schemes, http = dict(CheckpointLoader._schemes), CheckpointLoader._schemes['https://']
    try:
        install_safe_loading()
        install_safe_loading()  # a second time changes nothing
        torch.save(mmengine_checkpoint(), tmp_path / 'a.pth')
        model = nn.Linear(2, 3)
        loaded = load_checkpoint(model, str(tmp_path / 'a.pth'), map_location='cpu')
        assert torch.equal(model.weight, loaded['state_dict']['weight'])
        torch.save(dict(state_dict=Payload(tmp_path / 'ran')), tmp_path / 'bad.pth')
        with pytest.raises(UserError, match=r'bad\.pth.*system'):
            load_checkpoint(model, str(tmp_path / 'bad.pth'))
        assert not (tmp_path / 'ran').exists()
    finally:
        CheckpointLoader._schemes = OrderedDict(schemes)
        import mmengine.runner.checkpoint as module
        module.load_from_http = http


@pytest.mark.parametrize('legacy', [False, True])
def test_program_in_a_checkpoint_is_refused_and_not_run(tmp_path, legacy):
    marker, file = tmp_path / 'ran', tmp_path / 'evil.pth'
    torch.save(dict(state_dict={'a': torch.zeros(1)}, extra=Payload(marker)), file,
               _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UserError, match=r'evil\.pth: was refused.*system.*--trust-checkpoint'):
        safe_load(file)
    assert not marker.exists()
    safe_load(file, trust=True)
    assert marker.exists(), 'the payload works, so its absence above means something'


@needs_allow_list
@pytest.mark.parametrize(('owner', 'name'), [
    (HistoryBuffer, '__init__'), (HistoryBuffer, 'register_statistics'), (np.ndarray, 'tofile'), (dict, 'min')])
def test_getattr_reaches_nothing_but_the_statistics(tmp_path, owner, name):
    torch.save(dict(a=GetattrPayload(owner, name)), tmp_path / 'evil.pth')
    with pytest.raises(UserError, match='was refused'):
        safe_load(tmp_path / 'evil.pth')
    from projects.memfusion.runtime.checkpoint import _ALLOWED
    assert getattr not in _ALLOWED and eval not in _ALLOWED


@needs_allow_list
def test_arrays_whose_type_lies_about_pointers_are_refused(tmp_path):
    lying = Called(np.dtype, ('f8', False, True))
    lying.state = (3, '<', None, None, None, -1, -1, 63)
    torch.save(dict(a=np.arange(3.0)), tmp_path / 'good.pth')
    torch.save(dict(a=lying), tmp_path / 'evil.pth')
    for _ in range(2):  # a refusal leaves nothing behind
        with pytest.raises(UserError, match=r'evil\.pth: was refused.*numpy\.dtype'):
            safe_load(tmp_path / 'evil.pth')
        assert safe_load(tmp_path / 'good.pth')['a'].tolist() == [0, 1, 2]


def test_files_that_are_not_checkpoints(tmp_path):
    good = tmp_path / 'epoch_1.pth'
    torch.save(dict(state_dict={'a': torch.randn(1000)}), good)
    with pytest.raises(UserError, match=r'epoch_9\.pth: there is no such checkpoint.*epoch_1\.pth'):
        safe_load(tmp_path / 'epoch_9.pth')
    (tmp_path / 'cut.pth').write_bytes(good.read_bytes()[:2000])
    with pytest.raises(UserError, match=r'cut\.pth: is truncated or damaged \(2000 bytes\)'):
        safe_load(tmp_path / 'cut.pth')
    (tmp_path / 'notes.pth').write_text('these are my notes')
    with pytest.raises(UserError, match=r'notes\.pth: is not a checkpoint'):
        safe_load(tmp_path / 'notes.pth')
    (tmp_path / 'empty.pth').touch()
    with pytest.raises(UserError, match=r'empty\.pth: is empty'):
        safe_load(tmp_path / 'empty.pth')
    torch.save(torch.zeros(3), tmp_path / 'tensor.pth')
    with pytest.raises(UserError, match='holds a Tensor'):
        safe_load(tmp_path / 'tensor.pth')


class Slots(nn.Module):
    def __init__(self, width=4, temporal=False, fusion=False):
        super().__init__()
        self.pts_backbone = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))
        if temporal:
            self.temporal = nn.Linear(width, width)
        if fusion:
            self.fusion_layer = nn.Linear(width, width)


def test_own_weights_load_with_and_without_wrapping_prefix():
    source, target = Slots(), Slots()
    state = OrderedDict((f'module.{key}', value) for key, value in source.state_dict().items())
    load_weights(target, dict(state_dict=state), 'x.pth')
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values()))
    old = {k: v for k, v in source.state_dict().items() if 'num_batches_tracked' not in k}
    check_architecture(Slots(), old, 'x.pth')


def test_another_architecture_names_keys_and_shapes():
    with pytest.raises(UserError, match=r'x\.pth: is a checkpoint of another architecture: shapes differ: '
                                        r'pts_backbone\.0\.weight is \(4, 2\) in the file and \(8, 2\) in the model'):
        check_architecture(Slots(8), Slots(4).state_dict(), 'x.pth')
    with pytest.raises(UserError, match=r'only in the file: temporal\.'):
        check_architecture(Slots(), Slots(temporal=True).state_dict(), 'x.pth')
    with pytest.raises(UserError, match=r'only in the model: temporal\.'):
        check_architecture(Slots(temporal=True), Slots().state_dict(), 'x.pth')
    with pytest.raises(UserError, match='has no weights'):
        load_weights(Slots(), dict(meta=dict(epoch=1)), 'x.pth')


def test_next_phase_may_add_whole_slots_only():
    target = Slots(temporal=True, fusion=True)
    before = target.temporal.weight.clone()
    source = Slots()
    load_weights(target, dict(state_dict=source.state_dict()), 'x.pth', allow_missing_slots=True)
    assert torch.equal(target.temporal.weight, before)
    assert torch.equal(target.pts_backbone[0].weight, source.pts_backbone[0].weight)
    headed = {**source.state_dict(), 'pts_bbox_head.shared_conv.weight': torch.zeros(1)}
    check_architecture(target, headed, 'x.pth', allow_missing_slots=True)  # a phase without boxes
    with pytest.raises(UserError, match='only in the file: pts_bbox_head'):  # but not where nothing may lack
        check_architecture(Slots(), headed, 'x.pth')
    with pytest.raises(UserError, match='only in the file: fusion_layer'):
        check_architecture(Slots(), Slots(fusion=True).state_dict(), 'x.pth', allow_missing_slots=True)
    part = {k: v for k, v in Slots(temporal=True).state_dict().items() if k != 'temporal.bias'}
    with pytest.raises(UserError, match=r'only in the model: temporal\.bias'):
        check_architecture(target, part, 'x.pth', allow_missing_slots=True)
    with pytest.raises(UserError, match='another architecture'):  # nothing in common: not a missing slot
        check_architecture(target, {'conv1.weight': torch.zeros(1)}, 'x.pth', allow_missing_slots=True)
