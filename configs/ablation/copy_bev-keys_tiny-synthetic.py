# The features themselves are stored, in half precision, and keys say which of them answer.
_base_ = '../temporal/copy_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(value='bev', half=True, key_dim=16))
