# The tiny detector without cameras, on single frames.
_base_ = [
    '../_base_/models/pillar_centerhead_tiny.py', '../_base_/datasets/synthetic_sequence.py',
    '../_base_/schedules/one_cycle_cpu.py', '../_base_/default_runtime.py'
]
train_dataloader = dict(batch_size=4, dataset=dict(seq_len=1))
