# StreamPETR, ResNet-50 at 256x704, cameras alone; as published but for what its `published_quirks` would repeat. Clips of eight
# frames, of which the last two learn; testing streams.
_base_ = [
    '../_base_/models/cameras_r50.py', '../_base_/datasets/nus_sequence_petr.py', '../_base_/schedules/cosine_60e.py',
    '../_base_/default_runtime.py'
]
model = dict(
    grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4),
    pts_bbox_head=dict(
        type='StreamPETR', num_classes=10, queries=dict(num_learned=644, num_propagated=256), image_tokens=dict(in_channels=256, level=0),
        transformer=dict(dim=256, num_layers=6, num_heads=8, ffn_dim=2048, dropout=0.1, with_cp=True),
        loss_cfg=dict(
            cls_weight=2.0, box_weight=0.25, code_weights=[2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        decode_cfg=dict(max_num=300), denoising=dict(groups=10, centre_noise=1.0, split=0.75)),
    temporal=dict(type='QueryMemory', embed_dims=256, num_slots=1024, num_kept=256),
    train_cfg=dict(loss_frames='all', grad_frames=2))
train_dataloader = dict(batch_size=2, dataset=dict(seq_len=8))
optim_wrapper = dict(optimizer=dict(lr=4e-4))  # for 16 samples a step
auto_scale_lr = dict(base_batch_size=16)
