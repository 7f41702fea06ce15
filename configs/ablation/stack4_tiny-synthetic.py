# Ego option 4, and a baseline: the last four ego-aligned BEV maps.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(_delete_=True, type='StackFusion', in_channels=96, num_frames=4, hidden_dim=32))
