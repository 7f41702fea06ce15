# Ten frames of working memory instead of five.
_base_ = '../demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(max_mem_frames=10))
