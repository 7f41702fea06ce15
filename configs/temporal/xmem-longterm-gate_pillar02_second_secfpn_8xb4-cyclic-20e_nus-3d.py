# Long-term memory: the oldest frames become prototypes.
_base_ = './xmem-gate_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(temporal=dict(long_term=dict(min_mem_frames=2, num_prototypes=128, max_elements=1024)))
