# One network for both: scores the boxes of stage 2's checkpoint on all keyframes, as stage 1's are.
_base_ = './shared-perception_pillar04_tiny-synthetic.py'
model = dict(task_heads=dict(forecast=dict(type='ForecastHead', in_channels=96, head=dict(num_modes=5))))
