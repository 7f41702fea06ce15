# SparseBEV with cameras and LiDAR on the tiny synthetic world: the LiDAR's BEV map is one more frame to read.
_base_ = [
    '../_base_/models/sparsebev_pillar_tiny.py', '../_base_/datasets/synthetic_sequence_cameras.py',
    '../_base_/schedules/one_cycle_cpu.py', '../_base_/default_runtime.py'
]
train_dataloader = dict(batch_size=2, dataset=dict(seq_len=2))
