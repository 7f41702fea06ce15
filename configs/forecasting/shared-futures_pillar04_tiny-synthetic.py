# Futures alone: the same network from the same start, which is no longer asked for boxes.
_base_ = './shared-all_pillar04_tiny-synthetic.py'
model = dict(pts_bbox_head=None)
val_evaluator = [dict(**_base_.futures, baselines=['ConstantVelocityHeading'])]
test_evaluator = val_evaluator
