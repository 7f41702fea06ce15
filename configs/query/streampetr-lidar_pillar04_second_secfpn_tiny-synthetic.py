# StreamPETR with LiDAR alone on the tiny synthetic world.
_base_ = [
    '../_base_/models/streampetr_tiny.py', '../_base_/datasets/synthetic_sequence.py',
    '../_base_/schedules/one_cycle_cpu.py', '../_base_/default_runtime.py'
]
model = dict(img_backbone=None, img_neck=None, pts_bbox_head=dict(image_tokens=None))
train_dataloader = dict(batch_size=2, dataset=dict(seq_len=3))
