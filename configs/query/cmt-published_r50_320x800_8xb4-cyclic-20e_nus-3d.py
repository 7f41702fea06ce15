# The same, as the published code computes it: for its checkpoints, which tools/convert_checkpoint.py cmt converts and which want
# BGR images.
_base_ = './cmt_r50_320x800_8xb4-cyclic-20e_nus-3d.py'
model = dict(
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], bgr_to_rgb=False),
    pts_bbox_head=dict(published_quirks=True, inputs=dict(ladder='linear')))
