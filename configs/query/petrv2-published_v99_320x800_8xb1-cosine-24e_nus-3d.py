# For the official checkpoint, converted by tools/convert_checkpoint.py petrv2: all of the published code's peculiarities.
_base_ = './petrv2_v99_320x800_8xb1-cosine-24e_nus-3d.py'
model = dict(pts_bbox_head=dict(published_quirks=True))
