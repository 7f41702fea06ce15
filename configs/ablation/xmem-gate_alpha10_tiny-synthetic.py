# The pure gate: features are only what memory lets through.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(alpha=1.0))
