# Tiny twin: two groups instead of six, narrow, and statistics that arrive within a few hundred steps.
_base_ = ['../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py', '../_base_/models/multihead.py']
multihead = _base_.multihead_model
model = dict(
    pts_bbox_head={
        **multihead.pts_bbox_head, 'in_channels': 96, 'tasks': _base_.model.pts_bbox_head.tasks, 'shared_channels': 32,
        'norm_cfg': dict(type='BN', eps=1e-3, momentum=0.1), 'branches': {**multihead.pts_bbox_head.branches, 'channels': 32}},
    train_cfg=multihead.train_cfg, test_cfg=multihead.test_cfg)
