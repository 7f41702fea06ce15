# Baseline of the copying memory: the stack of four on the same frozen encoders, with the same clips, labels and two scores.
_base_ = './copy_pillar02_second_secfpn_8xb4-phase1-6e_nus-3d.py'
model = dict(temporal=dict(_delete_=True, type='StackFusion', in_channels=384, num_frames=4, hidden_dim=64))
custom_hooks = _base_.custom_hooks[:-1]
