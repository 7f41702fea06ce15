# tools/study_encodings.py: FuTr++ whose camera tokens attend to each other and whose active cells attend to them. LiDAR part and
# image branch stay as they are; each row says how poses are known.
_base_ = '../fusion/futrpp-tokens_r18_pillar04_second_secfpn_tiny-synthetic.py'
load_from = None
model = dict(
    fusion_layer=dict(
        tokens=dict(grid=(8, 11), self_attn=dict(num_heads=4, encoding=None)), film=dict(kind='off'),
        sample=dict(num_heads=4, encoding=None)),
    train_cfg=dict(frozen=['pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck', 'img_backbone', 'img_neck']))
