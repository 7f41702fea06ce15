# CMT's head at its published widths, for bases and leaves that choose the sensors: **_base_.cmt_head and its `inputs`.
cmt_head = dict(
    type='CMTHead', num_classes=10,
    transformer=dict(dim=256, num_queries=900, num_layers=6, num_heads=8, ffn_dim=1024, with_cp=True),
    loss_cfg=dict(
        code_weights=[2.0, 2.0] + 6 * [1.0] + 2 * [0.2], match_code_weights=[2.0, 2.0] + 6 * [1.0] + 2 * [0.0]),
    denoising=dict(groups=10, centre_noise=1.0, split=0.75))
