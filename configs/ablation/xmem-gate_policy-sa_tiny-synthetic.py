# A full working memory lets go of the frame that alone has seen least, not of the oldest.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(mem_policy=dict(type='sa')))
