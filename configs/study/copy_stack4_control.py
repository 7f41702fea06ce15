# The stack given what the copying memory is given: which cells hold points, and the same start.
_base_ = './copy_stack4.py'
model = dict(temporal=dict(observed=True, copy=True))
