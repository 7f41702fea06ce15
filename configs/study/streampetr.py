# Row of tools/compare_fusions.py --history: StreamPETR on the LiDAR features of the occlusion world; decoder and memory alone train.
# A query attends the less to a cell the farther that is from its box.
_base_ = './residual.py'
train_dataloader = dict(dataset=dict(seq_len=8))
model = dict(
    temporal=dict(_delete_=True, type='QueryMemory', embed_dims=64, num_slots=256, num_kept=64),
    pts_bbox_head=dict(
        _delete_=True, type='StreamPETR', num_classes=10, queries=dict(num_learned=96, num_propagated=64),
        bev_tokens=dict(in_channels=96, stride=2), denoising=dict(groups=3),
        transformer=dict(
            dim=64, num_layers=2, num_heads=4, ffn_dim=128, dropout=0.0,
            encoding=dict(type='PoseALiBi', form='factored', rotation=0.0, trans_norm='fixed', trans_scale=1.0))),
    train_cfg=dict(
        _delete_=True, loss_frames='all', frozen=['pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck']),
    test_cfg=dict(_delete_=True, mode='streaming', seq_len=8, stride=1))
