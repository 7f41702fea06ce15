# Training clips of one frame.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
train_dataloader = dict(batch_size=4, dataset=dict(seq_len=1))
