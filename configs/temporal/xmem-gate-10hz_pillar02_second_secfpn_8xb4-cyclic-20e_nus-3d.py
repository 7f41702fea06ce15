# Frames are sweeps at 10 Hz (every second one); only keyframes have labels. num_sweeps counts a frame's own.
_base_ = './xmem-gate_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
sweeps = dict(frame_rate='sweep', frame_stride=2, num_sweeps=5)
train_dataloader = dict(dataset=dict(seq_len=6, **sweeps))
val_dataloader = dict(dataset=sweeps)
test_dataloader = val_dataloader
model = dict(train_cfg=dict(loss_frames='last', grad_frames=2))
