_base_ = './memory.py'
model = dict(temporal=dict(stored_cells='all'))
