# CMT on the tiny synthetic world: one decoder over LiDAR BEV tokens and image tokens, each sensor hidden in a quarter of steps.
_base_ = [
    '../_base_/models/cmt_tiny.py', '../_base_/datasets/synthetic_sequence_cameras.py',
    '../_base_/schedules/one_cycle_cpu.py', '../_base_/default_runtime.py'
]
train_dataloader = dict(batch_size=4)
