"""The anchor twin on the nano world: one step of two processes with a clip each is one step of one process with both."""

import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from .conftest import largest_difference, load


def one_step(repo, root, folder, batch_size):
    """A config for a single SGD step on clips 0 (a scene's start, so half padding) and 1, BatchNorm frozen."""
    path = folder / f'one_step_{batch_size}.py'
    loader = f"dataset=dict(data_root='{root}')"
    path.write_text(f"""
_base_ = ['{repo}/configs/temporal/xmem-gate-anchor3d_pillar04_second_secfpn_tiny-synthetic.py']
model = dict(
    pts_voxel_encoder=dict(feat_channels=[16]), pts_middle_encoder=dict(in_channels=16),
    pts_backbone=dict(in_channels=16, out_channels=[16, 16, 16], layer_nums=[1, 1, 1]),
    pts_neck=dict(in_channels=[16, 16, 16], out_channels=[16, 16, 16]),
    pts_bbox_head=dict(in_channels=48, feat_channels=48),
    temporal=dict(network=dict(in_channels=48, key_dim=8, value_dim=16, hidden_dim=8, feature_dim=16),
                  mask_source='detections'))
train_dataloader = dict(
    batch_size={batch_size}, num_workers=0, persistent_workers=False, sampler=dict(shuffle=False),
    dataset=dict(data_root='{root}', seq_len=2, indices=2))
val_dataloader = dict({loader})
test_dataloader = val_dataloader
val_evaluator = dict(data_root='{root}', ann_file='{root}nuscenes_infos_val.pkl')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1, val_interval=10)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.01))
param_scheduler = []
custom_hooks = [dict(type='EpochSeedHook'), dict(type='FreezeBatchNormHook')]
default_hooks = dict(checkpoint=dict(interval=1, save_best=None), logger=dict(interval=1))
""")
    return path


def test_two_processes_with_one_clip_equal_one_process_with_two(run, distributed, repo, nano_infos_root, tmp_path):
    whole, half = (one_step(repo, f'{nano_infos_root}/', tmp_path, size) for size in (2, 1))
    init_default_scope('mmdet3d')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(whole).model)
    model.init_weights()
    model.pts_bbox_head.conv_cls.bias.data.zero_()  # scores of one half, so that boxes are found and written
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'start.pth')
    start = f'load_from={tmp_path / "start.pth"}'
    run('tools/train.py', whole, '--work-dir', tmp_path / 'one', '--cfg-options', start)
    distributed('dist_train.sh', half, 2, '--work-dir', tmp_path / 'two', '--cfg-options', start)
    before, one, two = (load(tmp_path / name) for name in ('start.pth', 'one/epoch_1.pth', 'two/epoch_1.pth'))
    assert largest_difference(one, two) < 1e-5
    assert largest_difference(before, one) > 1e-3
    assert not torch.equal(before['pts_bbox_head.conv_reg.weight'], two['pts_bbox_head.conv_reg.weight'])
