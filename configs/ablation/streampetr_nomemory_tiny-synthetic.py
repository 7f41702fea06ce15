# StreamPETR that sees every frame for itself: as many queries, all of them learned.
_base_ = '../query/streampetr_r18_fpn_tiny-synthetic.py'
model = dict(pts_bbox_head=dict(queries=dict(num_learned=128, num_propagated=0)), temporal=None)
