# Only cells that held a point may answer.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(stored_cells='observed'))
