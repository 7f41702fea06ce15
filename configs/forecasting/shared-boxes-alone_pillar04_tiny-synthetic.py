# Boxes alone: the same network from the same start, which is not asked for futures; scored by the config of stage 1.
_base_ = './shared-all_pillar04_tiny-synthetic.py'
model = dict(task_heads=None)
train_cfg = dict(val_begin=99)  # nobody here forecasts, which stage 2 is scored by; the last epoch would be scored all the same
