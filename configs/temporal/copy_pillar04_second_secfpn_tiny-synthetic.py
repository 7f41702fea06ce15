# Remembered cells of three frames stand in for what is not observed now.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(_delete_=True, type='CopyMemory', in_channels=96))
