_base_ = './fusion_futrpp.py'
train_dataloader = dict(dataset=dict(pipeline=[
    dict(step, rotation_deg=2.0, translation_m=0.1, prob=1.0) if step['type'] == 'CalibrationNoise' else step
    for step in _base_.train_pipeline]))
