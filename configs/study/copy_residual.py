# XMem's readout as in the first study, on clips of 4.
_base_ = './copy.py'
network = dict(
    type='BEVMemoryNetwork', in_channels=96, memory_stride=2, key_dim=16, value_dim=48, hidden_dim=32, feature_dim=48)
model = dict(temporal=dict(
    _delete_=True, type='TemporalMemory', network=network, readout=dict(type='ResidualReadout'), stored_cells='observed',
    loss_occ=dict(type='OccupancyLoss', bce_weight=1.0, warmup_iters=(100, 200))))
train_dataloader = dict(dataset=dict(seq_len=4))
