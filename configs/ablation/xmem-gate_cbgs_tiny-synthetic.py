# Clip starts are class-balanced.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
train_dataloader = dict(dataset=dict(_delete_=True, type='SeededCBGSDataset', dataset={{_base_.train_dataloader.dataset}}))
