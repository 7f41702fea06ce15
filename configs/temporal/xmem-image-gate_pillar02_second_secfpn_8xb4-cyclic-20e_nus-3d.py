# The published XMem as memory network, fed by a 1x1 adapter. XMem.pth: set model.temporal.network.checkpoint.
_base_ = './xmem-gate_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(temporal=dict(network=dict(_delete_=True, type='ImageMemoryNetwork', in_channels=384)))
