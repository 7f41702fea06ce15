# Made rooms (tools/create_spatial_qa.py) and a small model (python -m projects.spatial_mllm.tiny_checkpoint) on a CPU.
_base_ = './qwen25vl_pose-append_1e_vsibench.py'
checkpoint = '{{$QWEN_CHECKPOINT:work_dirs/tiny_qwen}}'
data_root = '{{$SPATIAL_ROOMS:data/rooms}}'
model = dict(
    checkpoint=checkpoint, spatial=dict(pose=dict(channels=16, trans_scale=1 / 3)), frozen=(), dtype='float32',
    gradient_checkpointing=False, max_new_tokens=8)
processor = dict(checkpoint=checkpoint, system=None, patches=dict(min_pixels=56 * 56))
sampler = dict(num_frames=8)
dataset = dict(processor=processor, sampler=sampler)
train_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False,
    dataset=dict(**dataset, source=dict(path=f'{data_root}/train/sft.jsonl', videos=data_root)))
test_dataloader = dict(
    batch_size=8, num_workers=0, persistent_workers=False,
    dataset=dict(**dataset, source=dict(path=f'{data_root}/test/vsibench.jsonl', videos=data_root)))
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3), accumulative_counts=1)
param_scheduler = None
