# Trained with calibration errors of 2 deg and 10 cm in every frame.
_base_ = '../fusion/futrpp_r50_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
train_dataloader = dict(dataset=dict(pipeline=[
    dict(step, rotation_deg=2.0, translation_m=0.1, prob=1.0) if step['type'] == 'CalibrationNoise' else step
    for step in _base_.train_pipeline]))
