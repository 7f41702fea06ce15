# A full working memory lets go of the frame whose pose is nearest to another one's, not of the oldest.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(mem_policy=dict(type='fps')))
