# A voxel that several cameras see reads the first of them alone.
_base_ = '../fusion/fastbev_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(overlap='first'))
