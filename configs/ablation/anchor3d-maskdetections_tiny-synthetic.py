# Anchor3DHead; mask: the boxes that the head finds in this frame.
_base_ = '../temporal/xmem-gate-anchor3d_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(mask_source='detections'))
