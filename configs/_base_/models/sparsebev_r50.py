# SparseBEV at its published widths: 900 boxes read four levels of ResNet-50 in eight frames.
_base_ = './cameras_r50_fpn.py'
num_frames = 8
model = dict(
    temporal=dict(type='FrameRing', num_frames=num_frames),
    pts_bbox_head=dict(
        type='SparseBEVHead', num_classes=10, num_queries=900, inputs=dict(num_frames=num_frames),
        transformer=dict(dim=256, num_layers=6, num_heads=8, ffn_dim=512, num_groups=4, num_points=4, num_levels=4),
        loss_cfg=dict(code_weights=[2.0, 2.0] + 8 * [1.0], match_code_weights=[2.0, 2.0] + 6 * [1.0] + 2 * [0.0]),
        denoising=dict(groups=10, centre_noise=0.5, split=2.0, label_noise=0.5)))
