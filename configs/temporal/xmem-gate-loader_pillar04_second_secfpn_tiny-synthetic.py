# Ego motion in the loader: all frames of a clip in the last one's coordinates, so testing encodes every window anew.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(align='loader'), test_cfg=dict(mode='window', seq_len=4, stride=1))
train_dataloader = dict(dataset=dict(align='loader'))
val_dataloader = dict(dataset=dict(align='loader', seq_len=4))
test_dataloader = val_dataloader
