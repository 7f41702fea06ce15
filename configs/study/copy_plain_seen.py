# The plain detector whose head is taught only what holds points now: hidden objects are absent.
_base_ = './copy_plain.py'
train_dataloader = dict(dataset=dict(keep_seen_s=0.0))
