# Anchor3DHead; mask: the true boxes. Training only; test with --cfg-options model.temporal.mask_source=occupancy.
_base_ = '../temporal/xmem-gate-anchor3d_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(mask_source='truth'))
train_cfg = dict(val_begin=1000)
