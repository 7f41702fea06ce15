# A row of tools/study_encodings.py --memory: half of each stored key also moves with the ego.
_base_ = './residual.py'
model = dict(temporal=dict(key_position=dict(ego=dict(type='CaPE6', layout='P1/2 I1/2'))))
