# Labels of objects that were seen within 2 s are kept, also without points.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
train_dataloader = dict(dataset=dict(keep_seen_s=2.0))
