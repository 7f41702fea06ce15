# Kinematics and the queries that a trained StreamPETR propagates about each agent. The detector stays as it is; give its checkpoint:
# --cfg-options model.features.detector.init_cfg.checkpoint=FILE
_base_ = ['./detector-memory_masked-m5_tiny-synthetic.py', '../_base_/models/forecast_queries.py']
detector = {name: part for name, part in _base_.model.features.detector.items() if name not in _base_.query_parts}
parts = {name: {key: value for key, value in part.items() if key != '_delete_'} for name, part in _base_.query_parts.items()}
init_cfg = dict(type='Pretrained', checkpoint='work_dirs/queries-perception_pillar04_tiny-synthetic/epoch_13.pth')
features = dict(type='QueryAgentFeatures', detector={**detector, **parts, 'init_cfg': init_cfg})
model = dict(features=dict(_delete_=True, **features))
