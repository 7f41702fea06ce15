# Mask schedule: half of the clips are written with the truth, blocks drop out.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(masks=dict(teacher_forcing=0.5, block_dropout=0.2)))
