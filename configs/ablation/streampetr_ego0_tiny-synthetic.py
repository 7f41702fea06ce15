# StreamPETR whose memory does not know that the ego moves.
_base_ = '../query/streampetr_r18_fpn_tiny-synthetic.py'
model = dict(temporal=dict(align='none'))
