"""Staged training on the nano world: the plain detector, then memory on it while it is frozen, then both."""

import pytest
import torch

SHRINK = """
model = dict(
    pts_voxel_encoder=dict(feat_channels=[16]),
    pts_middle_encoder=dict(in_channels=16),
    pts_backbone=dict(in_channels=16, out_channels=[16, 16, 16], layer_nums=[1, 1, 1]),
    pts_neck=dict(in_channels=[16, 16, 16], out_channels=[16, 16, 16]),
    pts_bbox_head=dict(in_channels=48, share_conv_channel=16,
                       separate_head=dict(type='SeparateHead', head_conv=16, init_bias=-2.19, final_kernel=3)),
    {temporal})
train_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root='{root}', indices=4))
val_dataloader = val_cfg = val_evaluator = None
train_cfg = dict(max_epochs=1, val_interval=10)
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=-1, save_best=None), logger=dict(interval=1))
"""
MEMORY = 'temporal=dict(network=dict(in_channels=48, key_dim=8, value_dim=16, hidden_dim=8, feature_dim=16))'


def state(folder):
    return torch.load(folder / 'epoch_1.pth', map_location='cpu', weights_only=False)['state_dict']


@pytest.fixture(scope='module')
def phases(repo, nano_infos_root, tool, tmp_path_factory):
    """Folders of the three runs, each from the one before, by the configs that users have."""
    base, folders = tmp_path_factory.mktemp('phases'), []
    for name, parent, temporal in (
            ('plain', 'lidar/pillar04_second_secfpn_tiny-synthetic.py', ''),
            ('phase1', 'temporal/xmem-gate_pillar04_tiny-phase1_synthetic.py', MEMORY),
            ('phase2', 'temporal/xmem-gate_pillar04_tiny-phase2_synthetic.py', MEMORY)):
        leaf = base / f'{name}.py'
        load_from = f"load_from = '{folders[-1]}/epoch_1.pth'" if folders else ''
        leaf.write_text(f"_base_ = ['{repo}/configs/{parent}']\n{load_from}"
                        + SHRINK.format(root=f'{nano_infos_root}/', temporal=temporal))
        done = tool('tools/train.py', leaf, '--work-dir', base / name, OMP_WAIT_POLICY='PASSIVE')
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        folders.append(base / name)
    return folders


def test_phase_one_trains_memory_and_leaves_the_detector_as_it_was(phases):
    plain, phase1, _ = map(state, phases)
    detector = [name for name in plain if name.startswith('pts_')]
    assert any('running_mean' in name for name in detector)
    assert all(torch.equal(plain[name], phase1[name]) for name in detector)  # BatchNorm statistics too, bit for bit
    assert not [name for name in plain if name.startswith('temporal.')]
    assert len([name for name in phase1 if name.startswith('temporal.')]) > 10


def test_phase_two_starts_from_phase_one_and_trains_all(phases):
    _, phase1, phase2 = map(state, phases)
    weights = [name for name in phase2 if name.endswith('.weight')]
    assert phase1.keys() == phase2.keys()
    moved = {name: (phase1[name] - phase2[name]).abs().max().item() for name in weights}
    assert all(change > 0 for change in moved.values()), [name for name, change in moved.items() if change == 0]
    # AdamW's steps are about the learning rate: the detector's is a tenth.
    slow = sorted(change for name, change in moved.items() if name.startswith('pts_'))
    fast = sorted(change for name, change in moved.items() if name.startswith('temporal.'))
    assert 2 < fast[len(fast) // 2] / slow[len(slow) // 2] < 50
