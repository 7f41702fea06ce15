# Gradient through the last frame only.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(train_cfg=dict(loss_frames='last', grad_frames=1))
train_dataloader = dict(batch_size=1, dataset=dict(seq_len=4))
