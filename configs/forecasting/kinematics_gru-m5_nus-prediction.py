# What the past alone tells.
_base_ = ['../_base_/datasets/nus_forecast.py', '../_base_/models/forecaster_kinematics.py', '../_base_/schedules/forecast_12e.py',
          '../_base_/forecast_runtime.py']
train_dataloader = dict(batch_size=8)
