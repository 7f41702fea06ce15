# For the official checkpoint, which tools/convert_checkpoint.py streampetr reads: it relies on what its code does oddly.
_base_ = './streampetr_r50_256x704_8xb2-cosine-60e_nus-3d.py'
model = dict(pts_bbox_head=dict(published_quirks=True))
