# Tested on SQA3D.
_base_ = './qwen25vl_pose-append_1e_vsibench.py'
test_dataloader = dict(dataset=dict(source=dict(
    _delete_=True, type='sqa3d', questions='{{$SQA3D:data/spatial/sqa3d}}/v1_balanced_questions_test_scannetv2.json',
    annotations='{{$SQA3D:data/spatial/sqa3d}}/v1_balanced_sqa_annotations_test_scannetv2.json',
    videos='{{$SPATIAL_VIDEOS:data/spatial/videos}}')))
test_evaluator = dict(_delete_=True, type='SQA3DMetric', protocol='em')
