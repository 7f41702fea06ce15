# The same, as the published code computes it: for its checkpoints, which tools/convert_checkpoint.py streampetr converts. Their
# 2-D head is another.
_base_ = './streampetr_v99_320x800_8xb2-cosine-24e_nus-3d.py'
model = dict(pts_bbox_head=dict(published_quirks=True), task_heads=None)
