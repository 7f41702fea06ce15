# Depths of equal steps instead of growing ones.
_base_ = '../query/petrv2_r18_fpn_tiny-synthetic.py'
model = dict(pts_bbox_head=dict(images=dict(depths=dict(kind='linear'))))
