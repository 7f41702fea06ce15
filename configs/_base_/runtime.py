# What every config of this project shares, beside mmdet3d's own default_runtime.
custom_imports = dict(imports=['projects.memfusion.register'], allow_failed_imports=False)
runner_type = 'MemFusionRunner'  # for mmdet3d's own tools too; MMEngine's 'Runner' loads whatever fits of a checkpoint
custom_hooks = [
    dict(type='EpochSeedHook'),  # random transforms depend on (seed, epoch, index)
    dict(type='RandomStateHook'),  # a resumed run draws what the uninterrupted one would have drawn
    dict(type='DeterminismHook'),  # --deterministic warns of what has no deterministic algorithm
    dict(type='SessionResetHook'),  # streaming memory starts empty in every val/test epoch
]
randomness = dict(seed=0, deterministic=False)
