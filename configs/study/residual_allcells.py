_base_ = './residual.py'
model = dict(temporal=dict(stored_cells='all'))
