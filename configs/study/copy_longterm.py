_base_ = './copy_residual.py'
model = dict(temporal=dict(max_mem_frames=3, long_term=dict(min_mem_frames=1, num_prototypes=256, max_elements=2048)))
