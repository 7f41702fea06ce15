# Queries know cameras by PRoPE, with poses of their own boxes layer by layer, instead of by embedded frustums.
_base_ = '../query/petrv2_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(pts_bbox_head=dict(
    images=dict(geometry='none'), transformer=dict(encoding=dict(type='PRoPE', layout='P1/2 I1/2'))))
