# Ego option 2 alone: velocity, yaw rate and time gap as channels, no alignment.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(align='none', ego_channels=True))
