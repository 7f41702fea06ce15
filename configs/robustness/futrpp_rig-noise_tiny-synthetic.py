# Tested with one error of the whole rig, 1 deg and 10 cm, that stays the same through a scene.
_base_ = '../fusion/futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
test_pipeline = [
    *_base_.test_pipeline[:-1],
    dict(type='CalibrationNoise', rotation_deg=1.0, translation_m=0.1, prob=1.0, mode='rig', per='scene', seed=0),
    _base_.test_pipeline[-1]]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
