# SparseBEV whose points are read in one camera, where two see them.
_base_ = '../query/sparsebev_r18_fpn_tiny-synthetic.py'
model = dict(pts_bbox_head=dict(transformer=dict(views_per_point=1)))
