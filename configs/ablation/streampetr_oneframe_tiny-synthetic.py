# StreamPETR that remembers the last frame alone.
_base_ = '../query/streampetr_r18_fpn_tiny-synthetic.py'
model = dict(temporal=dict(num_slots=32))
