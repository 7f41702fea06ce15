# Long-term memory: the oldest frames become prototypes.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(long_term=dict(min_mem_frames=2, num_prototypes=128, max_elements=1024)))
