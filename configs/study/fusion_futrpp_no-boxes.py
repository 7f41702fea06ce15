# Control row of tools/study_fusion.py: as FuTr++, but images are learned through the BEV alone, without 2-D boxes.
_base_ = './fusion_futrpp.py'
model = dict(task_heads=dict(_delete_=True))
train_dataloader = dict(dataset=dict(pipeline=[
    step for step in _base_.train_pipeline if step['type'] != 'ProjectImageBoxes']))
