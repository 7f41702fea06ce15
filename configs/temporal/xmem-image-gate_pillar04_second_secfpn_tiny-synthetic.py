# The published XMem as memory network, fed by a 1x1 adapter. XMem.pth: set model.temporal.network.checkpoint.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(network=dict(_delete_=True, type='ImageMemoryNetwork', in_channels=96)))
