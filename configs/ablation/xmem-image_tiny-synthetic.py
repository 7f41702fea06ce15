# Memory network: the published XMem behind a 1x1 adapter.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(network=dict(_delete_=True, type='ImageMemoryNetwork', in_channels=96)))
