# Frames in pairs that see the same, since two frames make one token.
_base_ = './qwen25vl_pose-append_1e_vsibench.py'
sampler = dict(_delete_=True, type='mergeaware_uniform', num_frames=16)
train_dataloader = dict(dataset=dict(sampler=sampler))
test_dataloader = dict(dataset=dict(sampler=sampler))
