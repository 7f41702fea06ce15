# The same, as the published code computes it: for its checkpoints, which tools/convert_checkpoint.py sparsebev converts.
_base_ = './sparsebev_r50_fpn_8xb1-cosine-24e_nus-3d.py'
model = dict(pts_bbox_head=dict(published_quirks=True))
