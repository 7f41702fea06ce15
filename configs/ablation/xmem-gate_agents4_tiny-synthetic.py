# Masks: three agents followed one by one, and all others.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(mask_source='detections', masks=dict(num_agents=4)))
