# Kinematics and what a trained detector's own memory holds of each agent. The detector stays as it is; give its checkpoint:
# --cfg-options model.features.detector.init_cfg.checkpoint=FILE
_base_ = './shared-all_pillar04_tiny-synthetic.py'
load_from = None
detector = {name: part for name, part in _base_.model.items() if name not in ('task_heads', 'data_preprocessor')}
model = dict(
    _delete_=True,
    type='AgentForecaster',
    head=dict(type='TrajectoryHead', num_modes=5),
    features=dict(
        type='DetectorAgentFeatures',
        pooling='masked',
        detector=dict(
            **detector,
            data_preprocessor=dict(type='ClipDataPreprocessor'),
            init_cfg=dict(
                type='Pretrained', checkpoint='work_dirs/shared-perception_pillar04_tiny-synthetic/epoch_13.pth'))),
    data_preprocessor=dict(
        type='ForecastDataPreprocessor', voxel=True, voxel_layer=dict(
            max_num_points=10, max_voxels=(30000, 40000), point_cloud_range={{_base_.point_cloud_range}}, voxel_size=[0.8, 0.8, 8.0])))
train_dataloader = dict(batch_size=4, dataset=dict(history_frames=5))
val_evaluator = [dict(**_base_.futures, baselines=['ConstantVelocityHeading'])]
test_evaluator = val_evaluator
optim_wrapper = dict(paramwise_cfg=None)
