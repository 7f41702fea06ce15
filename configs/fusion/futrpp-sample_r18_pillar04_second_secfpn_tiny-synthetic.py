# Sampling only: some cells read the images.
_base_ = './futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(film=dict(kind='off')))
