# Phase 1 of xmem-gate_*-phase1 from the published multi-head PointPillars: tools/convert_checkpoint.py makes the file.
_base_ = ['./xmem-gate_pillar02_second_secfpn_8xb4-phase1-6e_nus-3d.py', '../_base_/models/multihead.py']
load_from = 'work_dirs/openpcdet_multihead.pth'
model = {{_base_.multihead_model}}
