# Everything as the published code does it, faults included.
_base_ = '../query/cmt_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(pts_bbox_head=dict(published_quirks=True, inputs=dict(ladder='linear')))
