# One frame: no ring, velocities by themselves.
_base_ = '../query/petrv2_r18_fpn_tiny-synthetic.py'
model = dict(temporal=None, pts_bbox_head=dict(images=dict(num_frames=1)), train_cfg=dict(loss_frames='all'))
train_dataloader = dict(dataset=dict(seq_len=1))
