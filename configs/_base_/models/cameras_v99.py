# VoVNet V2-99 instead of ResNet-50. Its pretrained weights (FCOS3D's, remapped) are the file that PETR's project names; set
# `model.img_backbone.init_cfg` to where it lies, or to None to start from random weights.
_base_ = './cameras_r50.py'
model = dict(
    img_backbone=dict(
        _delete_=True, type='VoVNet', spec='V-99-eSE', out_features=('stage4', 'stage5'), frozen_stages=-1, norm_eval=True,
        with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/fcos3d_vovnet_imgbackbone-remapped.pth', prefix='img_backbone')),
    img_neck=dict(in_channels=[768, 1024]))
