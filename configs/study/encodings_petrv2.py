# tools/study_encodings.py: PETRv2 on single frames; its decoder starts from scratch. LiDAR part and image branch stay as they
# are; each row says how poses are known.
_base_ = '../query/petrv2_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(
    temporal=None,
    pts_bbox_head=dict(images=dict(num_frames=1), transformer=dict(encoding=None), denoising=dict(groups=3)),
    train_cfg=dict(frozen=['pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck', 'img_backbone', 'img_neck']))
train_dataloader = dict(dataset=dict(seq_len=1))
