# The same, as the published code computes it: for its checkpoints, which tools/convert_checkpoint.py cmt converts.
_base_ = './cmt_r50_320x800_8xb4-cyclic-20e_nus-3d.py'
model = dict(pts_bbox_head=dict(published_quirks=True, inputs=dict(ladder='linear')))
