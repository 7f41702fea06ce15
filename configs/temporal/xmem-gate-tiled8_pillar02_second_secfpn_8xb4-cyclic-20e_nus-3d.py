# Testing: memory starts anew every 8 frames (tiled windows).
_base_ = './xmem-gate_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
model = dict(test_cfg=dict(mode='window', seq_len=8, stride=8))
