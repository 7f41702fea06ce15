# Poses of queries and cameras in the cross-attention (CaPE), beside the embeddings.
_base_ = '../query/streampetr_r18_fpn_tiny-synthetic.py'
model = dict(pts_bbox_head=dict(transformer=dict(encoding=dict(type='CaPE6'))))
