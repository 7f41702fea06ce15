# Trained on the rig as it is.
_base_ = '../fusion/futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
train_dataloader = dict(dataset=dict(pipeline=[
    step for step in _base_.train_pipeline if step['type'] != 'CalibrationNoise']))
