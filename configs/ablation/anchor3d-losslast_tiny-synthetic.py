# Anchor3DHead; box loss on the last frame of a clip only.
_base_ = '../temporal/xmem-gate-anchor3d_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(train_cfg=dict(loss_frames='last'))
