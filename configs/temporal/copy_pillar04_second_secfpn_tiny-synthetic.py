# Remembered cells of three frames stand in for what is not observed now; clips are longer than the slots, labels of what was
# seen within 2 s stay.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(_delete_=True, type='CopyMemory', in_channels=96))
train_dataloader = dict(dataset=dict(seq_len=4, keep_seen_s=2.0))
