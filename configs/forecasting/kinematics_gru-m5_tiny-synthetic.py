# What the past alone tells, on the forecast world: tools/create_synthetic_nuscenes.py --preset forecast
_base_ = ['../_base_/datasets/synthetic_forecast.py', '../_base_/models/forecaster_kinematics.py',
          '../_base_/schedules/forecast_12e.py', '../_base_/forecast_runtime.py']
train_dataloader = dict(batch_size=8)
val_evaluator = dict(data_root={{_base_.data_root}})
test_evaluator = dict(
    data_root={{_base_.data_root}}, strata={{_base_.data_root}} + 'maps/prediction/maneuvers.json')
