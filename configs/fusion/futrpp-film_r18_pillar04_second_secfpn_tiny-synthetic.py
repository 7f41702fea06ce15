# FiLM only: every camera modulates the cells that it sees.
_base_ = './futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(sample=dict(kind='off')))
