# The narrow PointPillars with a narrow memory.
_base_ = './pillar_centerhead_tiny.py'
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
