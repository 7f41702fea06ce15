# FuTr++, then memory: the fused BEV is remembered.
_base_ = './futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(
    temporal=dict(
        type='TemporalMemory',
        network=dict(
            type='BEVMemoryNetwork', in_channels=96, memory_stride=2, key_dim=32, value_dim=64, hidden_dim=32, feature_dim=64),
        readout=dict(type='ResidualReadout'),
        loss_occ=dict(type='OccupancyLoss')),
    train_cfg=dict(grad_frames=1))
train_dataloader = dict(batch_size=2, dataset=dict(seq_len=2))
