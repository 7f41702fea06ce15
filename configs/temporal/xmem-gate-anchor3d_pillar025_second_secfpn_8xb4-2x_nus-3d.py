# XMem-gated PointPillars with Anchor3DHead: the detector of configs/lidar/pointpillars_hv_secfpn_*, whose checkpoints load,
# and mmdet3d's schedule for it.
_base_ = [
    '../_base_/models/pointpillars_anchor3d.py', '../_base_/datasets/nus_sequence_anchor.py',
    'mmdet3d::_base_/schedules/schedule-2x.py', '../_base_/default_runtime.py'
]
model = dict(
    temporal=dict(
        type='TemporalMemory',
        network=dict(type='BEVMemoryNetwork', in_channels=384, memory_stride=5),  # 40 x 40 cells of 2.5 m
        readout=dict(type='GateReadout'),
        loss_occ=dict(type='OccupancyLoss'),
        alpha=1.0,
        max_mem_frames=5,
        mem_every=1,
        mask_source='occupancy'))
