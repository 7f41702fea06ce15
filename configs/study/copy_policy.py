_base_ = './copy.py'
model = dict(temporal=dict(mem_policy=dict(type='sa')))
