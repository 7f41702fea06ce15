# Where a feature cell's viewing ray starts and its direction are embedded, not points along it.
_base_ = '../query/petrv2_r18_fpn_tiny-synthetic.py'
model = dict(pts_bbox_head=dict(images=dict(geometry='ray')))
