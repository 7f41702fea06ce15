# Baseline: the last four ego-aligned BEV maps, concatenated.
_base_ = './xmem-gate_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(temporal=dict(_delete_=True, type='StackFusion', in_channels=384, num_frames=4, hidden_dim=64))
