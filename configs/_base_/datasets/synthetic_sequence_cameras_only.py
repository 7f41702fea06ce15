# The tiny synthetic world with its six cameras and no LiDAR: no points are read, boxes stay in the LiDAR's frame.
_base_ = './synthetic_sequence_cameras.py'
train_pipeline = [
    step for step in _base_.train_pipeline
    if step['type'] not in ('LoadLidarPoints', 'LoadLidarSweeps', 'PointsRangeFilter', 'PointShuffle', 'PackClipFrame')
] + [dict(type='PackClipFrame', keys=['gt_bboxes_3d', 'gt_labels_3d'])]
test_pipeline = [
    step for step in _base_.test_pipeline if step['type'] not in ('LoadLidarPoints', 'LoadLidarSweeps', 'PackClipFrame')
] + [dict(type='PackClipFrame', keys=[])]
modality = dict(use_lidar=False, use_camera=True)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, modality=modality))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, modality=modality))
test_dataloader = val_dataloader
val_evaluator = dict(modality=modality)  # what a submission says was used
test_evaluator = val_evaluator
