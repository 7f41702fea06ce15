_base_ = ['mmdet3d::_base_/default_runtime.py', './runtime.py']
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=3, save_best='NuScenes metric/NDS', rule='greater'),
    visualization=dict(_delete_=True, type='BEVVisualizationHook'))
vis_backends = [dict(type='LocalVisBackend')]  # add dict(type='TensorboardVisBackend') for TensorBoard
visualizer = dict(type='Visualizer', vis_backends=vis_backends, name='visualizer')
