_base_ = './pillar_centerhead.py'
model = dict(
    temporal=dict(
        type='TemporalMemory',
        network=dict(type='BEVMemoryNetwork', in_channels=384, memory_stride=4),
        readout=dict(type='GateReadout'),
        loss_occ=dict(type='OccupancyLoss'),
        alpha=1.0,
        max_mem_frames=5,
        mem_every=1,
        mask_source='occupancy'))
