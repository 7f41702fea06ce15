# PETRv2 at its published widths, and the ring that hands its head the frame before. A leaf puts `**_base_.petrv2_model` into its
# model.
petrv2_model = dict(
    pts_bbox_head=dict(
        type='PETRv2', num_classes=10, num_queries=900,
        images=dict(
            channels=256, level=0, num_frames=2, multiview=True, gate=True, depths=dict(kind='lid', num=64, start_m=1.0),
            position_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0]),
        transformer=dict(dim=256, num_layers=6, num_heads=8, ffn_dim=2048, dropout=0.1, with_cp=True),
        loss_cfg=dict(code_weights=[1.0] * 10)),
    temporal=dict(type='FrameRing', num_frames=2, levels=[0]))
