# What every run of the video language model shares. Paths come from the environment: QWEN_CHECKPOINT (a local folder with config,
# weights and tokenizer), SPATIAL_VIDEOS, SPATIAL_SFT, VSIBENCH, SQA3D.
# Conversations to train on, VSI-Bench to test on; 16 frames, evenly spaced.
_base_ = ['mmdet3d::_base_/default_runtime.py']
custom_imports = dict(imports=['projects.spatial_mllm.register'], allow_failed_imports=False)
runner_type = 'MemFusionRunner'
randomness = dict(seed=0, deterministic=False)
default_hooks = dict(
    _delete_=True,
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),
    sampler_seed=dict(type='DistSamplerSeedHook'))
custom_hooks = [dict(type='SavePretrainedHook'), dict(type='KeptAnswersHook'), dict(type='AnswerDtypeHook')]
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='Visualizer', vis_backends=vis_backends, name='visualizer')
checkpoint = '{{$QWEN_CHECKPOINT:data/checkpoints/Qwen2.5-VL-7B-Instruct}}'
model = dict(
    type='VideoLanguageModel',
    checkpoint=checkpoint,
    spatial=dict(),
    tune='full',
    frozen=('visual',),
    dtype='bfloat16',
    gradient_checkpointing=True,
    max_new_tokens=16)
videos = '{{$SPATIAL_VIDEOS:data/spatial/videos}}'
processor = dict(checkpoint=checkpoint, pose_merge='first')
sampler = dict(type='uniform', num_frames=16)
train_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='spatial_collate', side='right'),
    dataset=dict(
        type='SpatialQADataset',
        source=dict(type='sft', path='{{$SPATIAL_SFT:data/spatial/sft.jsonl}}', videos=videos),
        processor=processor,
        sampler=sampler))
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='spatial_collate', side='left'),
    dataset=dict(
        type='SpatialQADataset',
        source=dict(type='vsibench', path='{{$VSIBENCH:data/spatial/vsibench/test.jsonl}}', videos=videos),
        processor=processor,
        sampler=sampler,
        test_mode=True))
test_evaluator = dict(type='VSIBenchMetric', protocol='official')
# One pass over the conversations, as published for full fine-tuning: 1e-5, 3 % warm-up, cosine. The weights that learn are kept in
# float32 (30 GB of a 7B model, their gradients as much); what AdamW remembers is shared out over the processes.
model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=False, gradient_as_bucket_view=True)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='ShardedAdamW', lr=1e-5, weight_decay=0.0, betas=(0.9, 0.95)),
    clip_grad=dict(max_norm=1.0),
    accumulative_counts=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=30, by_epoch=False),
    dict(type='CosineAnnealingLR', T_max=1, begin=0, end=1, by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
test_cfg = dict(type='TestLoop')
