# Forecasting: scored by the devkit's prediction metrics, on the split of the data set.
_base_ = './default_runtime.py'
default_hooks = dict(checkpoint=dict(save_best='forecast/minADE_5', rule='less'))
val_evaluator = dict(type='NuScenesForecastMetric', data_root='data/nuscenes/', split='train_val', off_road=False)
test_evaluator = dict(
    type='NuScenesForecastMetric', data_root='data/nuscenes/', split='val', baselines=['ConstantVelocityHeading', 'PhysicsOracle'])
