# XMem-gated multi-head PointPillars: OpenPCDet's cbgs_pp_multihead as the detector (docs/temporal.md says what its data have
# otherwise). Its checkpoint: tools/convert_checkpoint.py openpcdet_multihead IN OUT, then load_from=OUT.
_base_ = ['./xmem-gate_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py', '../_base_/models/multihead.py']
model = {{_base_.multihead_model}}
