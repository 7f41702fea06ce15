# Row of tools/study_fusion.py: no cameras; the head alone trains on.
_base_ = '../fusion/lidar-only_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(train_cfg=dict(frozen=['pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck']))
