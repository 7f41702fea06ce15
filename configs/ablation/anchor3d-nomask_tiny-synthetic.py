# Anchor3DHead; mask: none.
_base_ = '../temporal/xmem-gate-anchor3d_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(mask_source='none'))
