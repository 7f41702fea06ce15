# Active cells attend to each other before they read, knowing their places by poses and by rows and columns.
_base_ = '../fusion/futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(sample=dict(self_attn=dict(encoding=dict(type='HW+P')))))
