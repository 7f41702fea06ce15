# Camera tokens attend to each other, and active cells to them, knowing poses by PRoPE and not by an added ray.
_base_ = '../fusion/futrpp-tokens_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(
    geometry=dict(kind='pixel'),
    tokens=dict(self_attn=dict(encoding=dict(type='PRoPE'))),
    sample=dict(encoding=dict(type='PRoPE', layout='P1/2 I1/2'))))
