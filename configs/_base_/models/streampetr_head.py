# StreamPETR's head and memory at their published sizes, for leaves that choose an image encoder: **_base_.streampetr_model.
# Clips of eight frames, of which the last two learn; testing streams. Images learn 2-D boxes beside.
streampetr_model = dict(
    pts_bbox_head=dict(
        type='StreamPETR', num_classes=10, queries=dict(num_learned=644, num_propagated=256),
        image_tokens=dict(in_channels=256, level=0),
        transformer=dict(dim=256, num_layers=6, num_heads=8, ffn_dim=2048, dropout=0.1, with_cp=True),
        loss_cfg=dict(code_weights=[2.0, 2.0] + 8 * [1.0], match_code_weights=[2.0, 2.0] + 6 * [1.0] + 2 * [0.0]),
        denoising=dict(groups=10, centre_noise=1.0, split=0.75)),
    temporal=dict(type='QueryMemory', embed_dims=256, num_slots=1024, num_kept=256),
    task_heads=dict(img_boxes=dict(type='ImageCenterHead', in_channels=256, num_classes=10, stride=16)),
    train_cfg=dict(loss_frames='all', grad_frames=2))
