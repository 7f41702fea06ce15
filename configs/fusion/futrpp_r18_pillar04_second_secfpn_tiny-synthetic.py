# FuTr++ on the tiny synthetic world; tools/train.py on lidar-only_... comes before it.
_base_ = [
    '../_base_/models/futrpp_pillar_centerhead_tiny.py', '../_base_/datasets/synthetic_sequence_cameras.py',
    '../_base_/schedules/one_cycle_cpu.py', '../_base_/default_runtime.py'
]
load_from = 'work_dirs/lidar-only_pillar04_second_secfpn_tiny-synthetic/epoch_13.pth'
train_dataloader = dict(batch_size=4)
