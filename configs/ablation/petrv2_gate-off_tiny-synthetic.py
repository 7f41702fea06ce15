# Where a cell looks is not weighed by what it shows.
_base_ = '../query/petrv2_r18_fpn_tiny-synthetic.py'
model = dict(pts_bbox_head=dict(images=dict(gate=False)))
