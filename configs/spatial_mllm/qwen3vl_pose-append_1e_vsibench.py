# Qwen3-VL, whose videos stand frame by frame behind their times.
_base_ = './qwen25vl_pose-append_1e_vsibench.py'
checkpoint = '{{$QWEN3_CHECKPOINT:data/checkpoints/Qwen3-VL-8B-Instruct}}'
model = dict(checkpoint=checkpoint)
processor = dict(checkpoint=checkpoint, seconds_per_grid=None)
train_dataloader = dict(dataset=dict(processor=processor))
test_dataloader = dict(dataset=dict(processor=processor))
