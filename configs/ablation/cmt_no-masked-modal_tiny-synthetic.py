# Training always shows both sensors.
_base_ = '../query/cmt_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(pts_bbox_head=dict(masked_modal=None))
