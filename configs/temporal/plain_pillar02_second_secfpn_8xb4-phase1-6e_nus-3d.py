# Baseline of the copying memory: no memory; the head learns on as long, with the same labels and two scores.
_base_ = './copy_pillar02_second_secfpn_8xb4-phase1-6e_nus-3d.py'
model = dict(temporal=None, train_cfg=dict(grad_frames=None))
train_dataloader = dict(dataset=dict(seq_len=1))
custom_hooks = _base_.custom_hooks[:-1]
