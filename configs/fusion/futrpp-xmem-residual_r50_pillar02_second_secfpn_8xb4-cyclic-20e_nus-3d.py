# FuTr++, then memory: the fused BEV is remembered. Gradient through the last frame; the frames before it are context.
_base_ = './futrpp_r50_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(
    temporal=dict(
        type='TemporalMemory', network=dict(type='BEVMemoryNetwork', in_channels=384), readout=dict(type='ResidualReadout'),
        loss_occ=dict(type='OccupancyLoss')),
    train_cfg=dict(loss_frames='last', grad_frames=1))
train_dataloader = dict(batch_size=2, dataset=dict(seq_len=3))
