# A row of tools/study_encodings.py --memory: the ego's poses alone say where keys lie, not the distance between cells.
_base_ = './residual.py'
model = dict(temporal=dict(key_position=dict(distance=False, ego=dict(type='CaPE6', layout='P1/2 I1/2'))))
