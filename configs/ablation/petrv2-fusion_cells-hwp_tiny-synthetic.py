# Coarse BEV cells know in their attention where they lie from each other.
_base_ = '../fusion/petrv2-fusion_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(self_attention=dict(encoding=dict(type='HW+P'))))
