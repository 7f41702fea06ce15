# CMT with cameras alone on the tiny synthetic world.
_base_ = [
    '../_base_/models/cameras_tiny.py', '../_base_/datasets/synthetic_sequence_cameras_only.py',
    '../_base_/schedules/one_cycle_cpu.py', '../_base_/default_runtime.py'
]
model = dict(pts_bbox_head=dict(
    type='CMTHead', num_classes=10, inputs=dict(img_channels=64, level=1, num_depths=16),
    transformer=dict(dim=64, num_queries=100, num_layers=2, num_heads=4, ffn_dim=128, branch_dim=32),
    denoising=dict(groups=3)))
train_dataloader = dict(batch_size=4)
