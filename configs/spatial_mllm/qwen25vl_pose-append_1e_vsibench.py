# Camera poses in 32 new channels of each head: exactly Qwen2.5-VL before training.
_base_ = './qwen25vl_none_1e_vsibench.py'
model = dict(spatial=dict(pose=dict(mode='append', channels=32)))
processor = dict(geometry=dict(type='PosedFrames'), pose_merge='midpoint')
train_dataloader = dict(dataset=dict(processor=processor))
test_dataloader = dict(dataset=dict(processor=processor))
