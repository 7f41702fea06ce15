# SparseBEV without a past.
_base_ = '../query/sparsebev_r18_fpn_tiny-synthetic.py'
model = dict(temporal=None, pts_bbox_head=dict(inputs=dict(num_frames=1)))
train_dataloader = dict(batch_size=4, dataset=dict(seq_len=1))
