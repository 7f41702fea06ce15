# The LiDAR part of all rows of tools/study_fusion.py.
_base_ = '../fusion/lidar-only_pillar04_second_secfpn_tiny-synthetic.py'
max_epochs = 8
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [dict(type='OneCycleLR', eta_max=3e-3, pct_start=0.15, div_factor=5, by_epoch=True,
                        convert_to_iter_based=True, total_steps=max_epochs)]
