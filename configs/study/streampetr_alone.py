# Row of tools/compare_fusions.py --history: the same queries, none of them remembered. Both rows learn on single frames as this.
_base_ = './streampetr.py'
model = dict(temporal=None, pts_bbox_head=dict(queries=dict(num_propagated=0)))
