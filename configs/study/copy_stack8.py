_base_ = './copy_stack4.py'
model = dict(temporal=dict(num_frames=8))
