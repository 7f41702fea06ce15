# SparseBEV with LiDAR: the boxes also read the BEV map of the pillar encoder.
_base_ = './sparsebev_r50.py'
pillars = dict(type='BN', eps=1e-3, momentum=0.01)
model = dict(
    data_preprocessor=dict(voxel=True, voxel_layer=dict(max_num_points=20, max_voxels=(30000, 40000))),
    pts_voxel_encoder=dict(
        type='PillarFeatureNet', in_channels=5, feat_channels=[64], with_distance=False, legacy=False,
        norm_cfg=dict(type='BN1d', eps=1e-3, momentum=0.01)),
    pts_middle_encoder=dict(type='BatchedPillarsScatter', in_channels=64),
    pts_backbone=dict(
        type='SECOND', in_channels=64, out_channels=[64, 128, 256], layer_nums=[3, 5, 5], layer_strides=[2, 2, 2],
        norm_cfg=pillars, conv_cfg=dict(type='Conv2d', bias=False)),
    pts_neck=dict(
        type='SECONDFPN', in_channels=[64, 128, 256], out_channels=[128, 128, 128], upsample_strides=[0.5, 1, 2],
        norm_cfg=pillars, upsample_cfg=dict(type='deconv', bias=False), use_conv_for_no_stride=True),
    pts_bbox_head=dict(inputs=dict(bev_channels=384)))
