_base_ = './copy.py'
model = dict(temporal=dict(value='bev', half=True))
