# Without pretrained weights, for machines without a network: all of ResNet-50 learns, its statistics too.
_base_ = './futrpp_r50_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(img_backbone=dict(init_cfg=None, frozen_stages=-1, norm_eval=False))
