# Ego option 1 in the loader: windows are encoded anew. tools/ fill the data sets in.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(align='loader'), test_cfg=dict(mode='window', seq_len=2, stride=1))
train_dataloader = dict(dataset=dict(align='loader'))
val_dataloader = dict(dataset=dict(align='loader', seq_len=2))
test_dataloader = val_dataloader
