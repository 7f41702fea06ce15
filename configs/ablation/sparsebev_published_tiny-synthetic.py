# SparseBEV as the published code computes it.
_base_ = '../query/sparsebev_r18_fpn_tiny-synthetic.py'
model = dict(pts_bbox_head=dict(published_quirks=True))
