# Detection loss on the last frame of a clip only; the occupancy loss stays on all.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(train_cfg=dict(loss_frames='last'))
