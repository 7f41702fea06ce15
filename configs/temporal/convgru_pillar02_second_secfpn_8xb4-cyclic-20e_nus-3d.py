# Baseline: a ConvGRU in the same slot.
_base_ = './xmem-gate_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(temporal=dict(_delete_=True, type='ConvGRUFusion', in_channels=384, hidden_dim=64))
