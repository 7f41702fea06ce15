# Remembered cells of six frames stand in for what is not observed now; labels of what was seen within 2 s stay.
_base_ = './xmem-gate_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(
    temporal=dict(_delete_=True, type='CopyMemory', in_channels=384, num_slots=6),
    train_cfg=dict(loss_frames='last', grad_frames=4))
train_dataloader = dict(dataset=dict(seq_len=8, keep_seen_s=2.0))
