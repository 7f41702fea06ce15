# Row of tools/compare_fusions.py --history: StreamPETR on the LiDAR features of the world of long occlusions; decoder and memory alone
# train. Most queries begin where a heat map peaks, which is taught what holds points. A query attends the less to a cell the farther that
# is from its box.
_base_ = './copy.py'
test_evaluator = [_base_.test_evaluator[0], _base_.test_evaluator[-1]]
model = dict(
    temporal=dict(_delete_=True, type='QueryMemory', embed_dims=64, num_slots=192, num_kept=48),
    pts_bbox_head=dict(
        _delete_=True, type='StreamPETR', num_classes=10, queries=dict(num_learned=48, num_propagated=48, num_proposed=80),
        bev_tokens=dict(in_channels=96, stride=2), proposals=dict(hidden_channels=32, min_points=1),
        transformer=dict(
            dim=64, num_layers=2, num_heads=4, ffn_dim=128, dropout=0.0,
            encoding=dict(type='PoseALiBi', form='factored', rotation=0.0, trans_norm='fixed', trans_scale=1.0))),
    train_cfg=dict(
        _delete_=True, loss_frames='all', frozen=['pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck']),
    test_cfg=dict(_delete_=True, mode='streaming', seq_len=8, stride=1))
