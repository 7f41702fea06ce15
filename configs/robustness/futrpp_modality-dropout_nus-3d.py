# Modality dropout (as CMT): a quarter of the frames lacks some or all cameras, a quarter the LiDAR.
_base_ = '../fusion/futrpp_r50_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
train_dataloader = dict(dataset=dict(pipeline=[
    *_base_.train_pipeline[:-1], dict(type='DropCameras', prob=0.25), dict(type='DropLidar', prob=0.25),
    _base_.train_pipeline[-1]]))
