# Training clips of eight frames.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
train_dataloader = dict(batch_size=1, dataset=dict(seq_len=8))
