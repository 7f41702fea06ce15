# What leaves the slots is kept in a map that lies still in the world.
_base_ = '../temporal/copy_pillar04_second_secfpn_tiny-synthetic.py'
model = dict(temporal=dict(long_term=True))
