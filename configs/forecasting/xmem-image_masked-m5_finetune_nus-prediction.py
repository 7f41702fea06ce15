# Stage 2: XMem learns too. Give stage 1's checkpoint: --cfg-options load_from=FILE
_base_ = './xmem-image_masked-m5_nus-prediction.py'
model = dict(train_features=True)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [dict(type='CosineAnnealingLR', T_max=6, begin=0, end=6, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=6)
