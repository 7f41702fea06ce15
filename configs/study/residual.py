# A row of tools/study_memory.py and the base of all others: the demo's model on the occlusion world, one sweep a frame, clips of 4, labels of
# what was seen within 2 s kept. Only cells that held a point answer later. The plain detector is frozen; temporal module and
# head train on its cached features.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
data_root = 'data/occlusion/'
train_dataloader = dict(
    batch_size=4, dataset=dict(data_root=data_root, seq_len=4, num_sweeps=1, keep_seen_s=2.0))
val_dataloader = dict(dataset=dict(data_root=data_root, num_sweeps=1))
test_dataloader = val_dataloader
model = dict(
    temporal=dict(
        network=dict(key_dim=16, value_dim=48, hidden_dim=32, feature_dim=48),
        alpha=1.0, stored_cells='observed', loss_occ=dict(bce_weight=1.0, warmup_iters=(100, 200)),
        readout=dict(type='ResidualReadout')),
    train_cfg=dict(
        loss_frames='last', frozen=['pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck']))
test_evaluator = [
    dict(type='OrderedNuScenesMetric', data_root=data_root, ann_file=data_root + 'nuscenes_infos_val.pkl', metric='bbox'),
    dict(type='MemoryMetric', ann_file=data_root + 'nuscenes_infos_val.pkl', range_m=25.0),
]
val_evaluator = test_evaluator
