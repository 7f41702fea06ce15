# Mask: the true boxes. Training only, so nothing is validated; test with --cfg-options model.temporal.mask_source=occupancy.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(mask_source='truth'))
train_cfg = dict(val_begin=1000)
