# One FiLM for all cells.
_base_ = '../fusion/futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(film=dict(kind='global')))
