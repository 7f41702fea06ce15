# Row of tools/compare_fusions.py --history: as many queries, all learned, no memory.
_base_ = './streampetr.py'
model = dict(temporal=None, pts_bbox_head=dict(queries=dict(num_learned=160, num_propagated=0)))
