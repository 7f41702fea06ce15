# The same, as the published code computes it: for its checkpoints, which tools/convert_checkpoint.py cmt converts.
_base_ = './cmt-camera_v99_640x1600_8xb2-cyclic-20e_nus-3d.py'
model = dict(pts_bbox_head=dict(published_quirks=True, inputs=dict(ladder='linear')))
