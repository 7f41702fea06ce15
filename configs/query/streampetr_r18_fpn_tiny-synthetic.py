# StreamPETR with cameras alone on the tiny synthetic world: clips of three frames, the detections of one lead the next.
_base_ = [
    '../_base_/models/cameras_tiny.py', '../_base_/datasets/synthetic_sequence_cameras_only.py',
    '../_base_/schedules/one_cycle_cpu.py', '../_base_/default_runtime.py'
]
model = dict(
    pts_bbox_head=dict(
        type='StreamPETR', num_classes=10, queries=dict(num_learned=96, num_propagated=32),
        image_tokens=dict(in_channels=64, level=1, num_depths=16),
        transformer=dict(dim=64, num_layers=2, num_heads=4, ffn_dim=128), denoising=dict(groups=3)),
    temporal=dict(type='QueryMemory', embed_dims=64, num_slots=128, num_kept=32), train_cfg=dict(loss_frames='all'))
train_dataloader = dict(batch_size=2, dataset=dict(seq_len=3))
