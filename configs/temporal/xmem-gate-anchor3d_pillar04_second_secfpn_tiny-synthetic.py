# The demo's detector and memory with mmdet3d's Anchor3DHead.
_base_ = [
    '../_base_/models/pointpillars_anchor3d_tiny.py', '../_base_/datasets/synthetic_sequence.py',
    '../_base_/schedules/one_cycle_cpu.py', '../_base_/default_runtime.py'
]
model = dict(
    temporal=dict(
        type='TemporalMemory',
        network=dict(
            type='BEVMemoryNetwork', in_channels=96, memory_stride=2, key_dim=32, value_dim=64, hidden_dim=32, feature_dim=64),
        readout=dict(type='GateReadout'),
        loss_occ=dict(type='OccupancyLoss', bce_weight=4.0),
        alpha=0.5,
        max_mem_frames=5,
        mem_every=1,
        mask_source='occupancy'))
custom_hooks = _base_.custom_hooks + [dict(type='ChannelsLastHook')]
