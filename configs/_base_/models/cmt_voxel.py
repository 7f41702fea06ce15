# CMT with its published voxel encoder; the leaf's `model.grid` must have a multiple of 16 cells each way.
_base_ = './cmt_pillar.py'
norm_cfg = dict(type='BN', eps=1e-3, momentum=0.01)
model = dict(
    data_preprocessor=dict(voxel_layer=dict(max_num_points=10, max_voxels=(120000, 160000))),
    pts_voxel_encoder=dict(_delete_=True, type='HardSimpleVFE', num_features=5),
    pts_middle_encoder=dict(
        _delete_=True, type='PortableSparseEncoder', in_channels=5, output_channels=128, order=('conv', 'norm', 'act'),
        encoder_channels=((16, 16, 32), (32, 32, 64), (64, 64, 128), (128, 128)),
        encoder_paddings=((0, 0, 1), (0, 0, 1), (0, 0, [0, 1, 1]), (0, 0)), block_type='basicblock'),
    pts_backbone=dict(in_channels=256, out_channels=[128, 256], layer_nums=[5, 5], layer_strides=[1, 2]),
    pts_neck=dict(in_channels=[128, 256], out_channels=[256, 256], upsample_strides=[1, 2]),
    pts_bbox_head=dict(inputs=dict(bev_channels=512)))
