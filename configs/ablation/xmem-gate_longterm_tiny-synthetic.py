# Long-term memory beside the five frames.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(long_term=dict(min_mem_frames=2, num_prototypes=64, max_elements=512)))
