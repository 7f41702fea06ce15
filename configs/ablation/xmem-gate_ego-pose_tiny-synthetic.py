# Half of each stored key moves with the ego when memory is read, beside the distance between cells.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(key_position=dict(ego=dict(type='CaPE6', layout='P1/2 I1/2'))))
