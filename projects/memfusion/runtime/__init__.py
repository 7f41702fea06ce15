"""Runtime: what the command lines share. Launching, configs, checkpoints, readable errors; no tensors of the flow."""

from .blame import naming_options
from .checkpoint import check_architecture, install_safe_loading, load_weights, safe_load
from .errors import UserError, run_cli
from .launch import (
    apply_amp,
    apply_auto_scale_lr,
    apply_checkpoint,
    apply_fuse,
    apply_seed,
    apply_tta,
    apply_visualization,
    build_runner,
    init_registry,
    prepare_config,
    prepare_distributed,
    set_work_dir,
)
from .options import OptionsAction
from .run_checks import check_run
from .runner import MemFusionRunner

__all__ = [
    'MemFusionRunner', 'OptionsAction', 'UserError', 'apply_amp', 'apply_auto_scale_lr', 'apply_checkpoint', 'apply_fuse',
    'apply_seed', 'apply_tta', 'apply_visualization', 'build_runner', 'check_architecture', 'check_run', 'init_registry',
    'install_safe_loading', 'load_weights', 'naming_options', 'prepare_config', 'prepare_distributed', 'run_cli', 'safe_load',
    'set_work_dir',
]
