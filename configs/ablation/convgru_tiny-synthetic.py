# Baseline: a ConvGRU in the same slot.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(_delete_=True, type='ConvGRUFusion', in_channels=96, hidden_dim=32))
