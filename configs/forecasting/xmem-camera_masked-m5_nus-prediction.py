# Kinematics and XMem on the front camera's images, frozen (stage 1); what the camera does not see has flag 0. Weights:
# --cfg-options model.features.stream.network.checkpoint=XMem.pth
_base_ = ['../_base_/datasets/nus_forecast_camera.py', '../_base_/models/forecaster_kinematics.py',
          '../_base_/schedules/forecast_12e.py', '../_base_/forecast_runtime.py']
train_dataloader = dict(batch_size=8)
model = dict(
    features=dict(
        type='MemoryAgentFeatures', source='camera', pooling='masked',
        stream=dict(
            type='AgentStream',
            network=dict(type='ImageMemoryNetwork', in_channels=3, adapter=False, bev_shape=(256, 448)))),
    data_preprocessor=dict(**_base_.img_norm_cfg))
