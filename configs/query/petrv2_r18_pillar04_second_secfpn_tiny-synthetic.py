# PETRv2 on the tiny synthetic world, LiDAR BEV tokens beside the image tokens of two frames.
_base_ = [
    '../_base_/models/petrv2_pillar_tiny.py', '../_base_/datasets/synthetic_sequence_cameras.py',
    '../_base_/schedules/one_cycle_cpu.py', '../_base_/default_runtime.py'
]
train_dataloader = dict(batch_size=4, dataset=dict(seq_len=2))
