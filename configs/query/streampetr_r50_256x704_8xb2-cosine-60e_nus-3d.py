# StreamPETR, ResNet-50 at 256x704 from nuImages weights, cameras alone, 428 queries: the fast one of the published models.
_base_ = [
    '../_base_/models/cameras_r50.py', '../_base_/models/streampetr_head.py', '../_base_/datasets/nus_sequence_streampetr.py',
    '../_base_/schedules/cosine_60e.py', '../_base_/default_runtime.py'
]
nuimages = 'https://download.openmmlab.com/mmdetection3d/v0.1.0_models/nuimages_semseg/'
run = 'cascade_mask_rcnn_r50_fpn_coco-20e_20e_nuim'
whole = _base_.streampetr_model
model = dict(
    grid=dict(point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.2, 0.2, 8.0], out_size_factor=4),
    img_backbone=dict(init_cfg=dict(checkpoint=f'{nuimages}{run}/{run}_20201009_124951-40963960.pth', prefix='backbone')),
    pts_bbox_head={**whole['pts_bbox_head'], 'queries': dict(num_learned=300, num_propagated=128)},
    temporal={**whole['temporal'], 'num_slots': 512, 'num_kept': 128},
    task_heads=whole['task_heads'], train_cfg=whole['train_cfg'])
train_dataloader = dict(batch_size=2, dataset=dict(seq_len=8))
optim_wrapper = dict(optimizer=dict(lr=4e-4))  # for 16 samples a step
auto_scale_lr = dict(base_batch_size=16)
