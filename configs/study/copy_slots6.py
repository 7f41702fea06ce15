_base_ = './copy.py'
model = dict(temporal=dict(num_slots=6))
