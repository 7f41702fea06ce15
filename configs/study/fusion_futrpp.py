# Row of tools/study_fusion.py: image branch from scratch, FuTr++ and head train; the LiDAR part is frozen, as in every row.
# What the images show is also learned from the 3-D boxes drawn into them, which needs no further labels;
# fusion_futrpp_no-boxes.py does as well without.
_base_ = '../fusion/futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
load_from = None  # the study gives each seed's own LiDAR-only detector; by hand: load_from=OUT/seedN/pretrain/epoch_8.pth
model = dict(
    fusion_layer=dict(sample=dict(num_points=2, heights_m=(-1.5, -1.0, -0.5, 0.5))),  # cycles end at -0.4, lorries at 1.1
    task_heads=dict(img_boxes=dict(type='ImageCenterHead', in_channels=64, num_classes=10, stride=8)),
    train_cfg=dict(frozen=['pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck']))
train_pipeline = [*_base_.train_pipeline[:4], dict(type='ProjectImageBoxes'), *_base_.train_pipeline[4:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
