# StreamPETR with LiDAR and cameras on the tiny synthetic world: BEV tokens beside image tokens.
_base_ = [
    '../_base_/models/streampetr_tiny.py', '../_base_/datasets/synthetic_sequence_cameras.py',
    '../_base_/schedules/one_cycle_cpu.py', '../_base_/default_runtime.py'
]
train_dataloader = dict(batch_size=2, dataset=dict(seq_len=3))
