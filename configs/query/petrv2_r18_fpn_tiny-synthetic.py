# PETRv2 with cameras alone on the tiny synthetic world, two frames.
_base_ = [
    '../_base_/models/petrv2_tiny.py', '../_base_/datasets/synthetic_sequence_cameras_only.py',
    '../_base_/schedules/one_cycle_cpu.py', '../_base_/default_runtime.py'
]
train_dataloader = dict(batch_size=4, dataset=dict(seq_len=2))
