_base_ = './copy.py'
model = dict(temporal=dict(_delete_=True, type='CopyGRU', in_channels=96))
