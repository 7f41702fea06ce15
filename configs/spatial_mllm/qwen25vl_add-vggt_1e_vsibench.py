# Spatial-MLLM's connector: tokens of VGGT (2048 channels a patch, npz beside the video) are added to the vision tokens.
_base_ = './qwen25vl_none_1e_vsibench.py'
model = dict(spatial=dict(connector=dict(type='add', geometry_dim=2048 * 8)))
processor = dict(geometry=dict(type='PrecomputedGeometry', poses=False))
sampler = dict(_delete_=True, type='sa', num_frames=16, fill=True)
train_dataloader = dict(dataset=dict(processor=processor, sampler=sampler))
test_dataloader = dict(dataset=dict(processor=processor, sampler=sampler))
