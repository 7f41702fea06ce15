# Per-camera FiLM, summed without regard to the field of view.
_base_ = '../fusion/futrpp_r18_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(fusion_layer=dict(film=dict(kind='per_camera_sum')))
