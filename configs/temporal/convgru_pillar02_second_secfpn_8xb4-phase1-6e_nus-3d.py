# Baseline of the copying memory: a ConvGRU on the same frozen encoders, with the same clips, labels and two scores.
_base_ = './copy_pillar02_second_secfpn_8xb4-phase1-6e_nus-3d.py'
model = dict(temporal=dict(_delete_=True, type='ConvGRUFusion', in_channels=384, hidden_dim=64))
custom_hooks = _base_.custom_hooks[:-1]
