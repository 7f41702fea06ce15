# Poses of queries, cameras and BEV cells in the cross-attention (GTA), beside the embeddings.
_base_ = '../query/cmt_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(pts_bbox_head=dict(transformer=dict(encoding=dict(type='GTA', layout='P1/2 I1/2'))))
