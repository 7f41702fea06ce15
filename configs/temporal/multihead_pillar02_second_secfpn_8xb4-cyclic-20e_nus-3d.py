# The published multi-head PointPillars by itself: the single-frame baseline beside the gated one.
_base_ = './xmem-gate-multihead_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(temporal=None)
