# The synthetic forecast world: tools/create_synthetic_nuscenes.py --preset forecast makes it.
_base_ = './nus_forecast.py'
data_root = 'data/synthetic_forecast/'
train_dataloader = dict(num_workers=2, dataset=dict(data_root=data_root))
val_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root))
test_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root))
