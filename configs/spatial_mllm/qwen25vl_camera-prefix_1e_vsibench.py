# Each grid step begins with a token of its own that says where its camera was.
_base_ = './qwen25vl_none_1e_vsibench.py'
model = dict(spatial=dict(connector=dict(type='camera_prefix', geometry_dim=32)))
processor = dict(geometry=dict(type='PosedFrames'), camera_tokens=True)
train_dataloader = dict(dataset=dict(processor=processor))
test_dataloader = dict(dataset=dict(processor=processor))
