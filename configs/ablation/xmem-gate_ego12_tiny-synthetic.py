# Ego options 1 + 2: velocity, yaw rate and time gap as channels.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(ego_channels=True))
