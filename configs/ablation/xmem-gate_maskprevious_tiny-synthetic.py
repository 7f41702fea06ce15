# Mask: the boxes that the head found in the last frame.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(mask_source='previous_detections'))
