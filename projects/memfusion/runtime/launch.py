"""Runtime. In: the arguments of a command line. Out: a checked config, initialised processes and a Runner."""

from __future__ import annotations

import datetime
import inspect
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .allocator import keep_large_blocks
from .checkpoint import install_safe_loading
from .errors import UserError
from .options import check_options
from .run_checks import check_run
from .runner import MemFusionRunner

_PICTURES_TO_FILES = 'default_hooks.visualization is {}, which writes pictures to files; use --show-dir DIR'


def init_registry() -> None:
    """Fills mmdet3d's registries with its own and our modules and makes mmdet3d the default scope.

    For programs that build without a Runner; a Runner does the same from `default_scope` and `custom_imports`.
    """
    from mmdet3d.utils import register_all_modules

    from projects.memfusion import register  # noqa: F401 (registers)
    register_all_modules(init_default_scope=True)


# -- config -----------------------------------------------------------------------------------------------------------
def prepare_config(path: str | Path, cfg_options: Mapping[str, Any] | None = None) -> Config:
    """Reads a config and merges `--cfg-options` into it.

    A new key is allowed under a part that exists (MMEngine's habit), with a warning; a key whose parent does not
    exist is a spelling mistake.

    Raises:
        UserError: naming the file or the key, if the config is missing or wrong or an option does not belong.
    """
    if not Path(path).is_file():
        raise UserError(f'{path}: there is no such config file')
    try:
        cfg = Config.fromfile(str(path))
    except FileNotFoundError as error:
        raise UserError(f'{path}: a file it is based on is missing: {error.filename or error}') from error
    except ImportError as error:
        raise UserError(f'{path}: cannot import what it needs: {error}; run `python tools/check_env.py`') from error
    except Exception as error:  # a config is a program: whatever it raises is the config's mistake
        raise UserError(f'{path}: cannot be read as a config: {type(error).__name__}: {error}') from error
    if cfg_options:
        check_options(cfg, cfg_options)
        try:
            cfg.merge_from_dict(dict(cfg_options))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise UserError(f'--cfg-options {" ".join(cfg_options)}: cannot be merged into {path}: {error}') from error
    follow_alignment(cfg)
    return cfg


def follow_alignment(cfg: Config) -> None:
    """Where model.temporal.align is 'loader', the clip data sets align too, and test items are windows of test_cfg.seq_len.

    So that ego motion is one line of a config. A data set that already says something keeps it; the detector refuses a
    contradiction.
    """
    model = cfg.get('model')
    if not isinstance(model, Mapping):  # built already
        return
    if (model.get('temporal') or {}).get('align') != 'loader':
        return
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for dataset in _datasets((cfg.get(name) or {}).get('dataset')):
            if dataset.get('type') == 'NuScenesSequenceDataset':
                dataset.setdefault('align', 'loader')
                if dataset.get('test_mode'):
                    dataset['seq_len'] = (model.get('test_cfg') or {}).get('seq_len', 8)


def set_work_dir(cfg: Config, config_path: str | Path, work_dir: str | None) -> None:
    """Command line before config before the config's name."""
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = os.path.join('./work_dirs', Path(config_path).stem)


# -- switches ---------------------------------------------------------------------------------------------------------
def apply_amp(cfg: Config, amp: bool) -> None:
    """`--amp`: mixed precision with dynamic loss scaling.

    Raises:
        UserError: if there is no CUDA device, or the config's optimizer wrapper cannot be switched.
    """
    kind = cfg.optim_wrapper.get('type', 'OptimWrapper') if cfg.get('optim_wrapper') else 'OptimWrapper'
    name = kind if isinstance(kind, str) else kind.__name__
    if (amp or name == 'AmpOptimWrapper') and not torch.cuda.is_available():
        source = '--amp' if amp else "optim_wrapper.type='AmpOptimWrapper'"
        raise UserError(f'{source}: mixed precision needs a CUDA device and there is none here; leave it out')
    if not amp or name == 'AmpOptimWrapper':
        return
    if name != 'OptimWrapper':
        raise UserError(f"--amp: works with optim_wrapper.type='OptimWrapper', the config has '{name}'")
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.loss_scale = 'dynamic'


def apply_auto_scale_lr(cfg: Config, auto_scale_lr: bool) -> None:
    """`--auto-scale-lr`: learning rate times real batch size over `auto_scale_lr.base_batch_size`.

    Raises:
        UserError: if the config does not say what batch size its learning rate is for.
    """
    if not auto_scale_lr:
        return
    settings = cfg.get('auto_scale_lr') or {}
    if 'base_batch_size' not in settings:
        raise UserError('--auto-scale-lr: the config does not say which batch size its learning rate is for; add '
                        'auto_scale_lr = dict(enable=False, base_batch_size=N)')
    cfg.auto_scale_lr.enable = True


def apply_seed(cfg: Config, seed: int | None, deterministic: bool) -> None:
    """`--seed` and `--deterministic`: for the process and for each training data set that takes a seed."""
    randomness = dict(cfg.get('randomness') or {})
    if seed is not None:
        if not 0 <= seed < 2**32:
            raise UserError(f'--seed {seed}: must be from 0 to 4294967295')
        randomness['seed'] = seed
        for dataset in _datasets(cfg.get('train_dataloader', {}).get('dataset')):
            if _takes_seed(dataset.get('type')):
                dataset['seed'] = seed
    if deterministic:
        randomness['deterministic'] = True
        os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')  # cuBLAS is deterministic only with this
    cfg.randomness = randomness


def apply_visualization(
    cfg: Config, show: bool, show_dir: str | None, score_thr: float, task: str | None, wait_time_s: float,
) -> None:
    """`--show`, `--show-dir`: switches on whatever visualization hook the config has.

    Raises:
        UserError: if it has none, mmdet3d's own hook is not told its task, or another hook is told what only that one does.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise UserError("--show-dir: the config has no default_hooks.visualization; add visualization=dict("
                        "type='BEVVisualizationHook') to default_hooks")
    hook.update(draw=True, score_thr=score_thr)
    if show_dir:
        hook.test_out_dir = show_dir
    if hook.get('type') == 'Det3DVisualizationHook':
        if task is None:
            raise UserError("--show-dir: mmdet3d's Det3DVisualizationHook needs --task, e.g. --task lidar_det")
        hook.vis_task = task
        if show:
            hook.update(show=True, wait_time=wait_time_s)
    elif show or task is not None:
        raise UserError(f"{'--show' if show else '--task'}: {_PICTURES_TO_FILES.format(hook.get('type'))}")


def apply_tta(cfg: Config) -> None:
    """`--tta`: puts the config's tta_model around the model and its tta_pipeline into the test data set.

    Raises:
        UserError: if the config has none, or the model carries memory from frame to frame.
    """
    absent = [name for name in ('tta_model', 'tta_pipeline') if name not in cfg]
    if absent:
        raise UserError(f'--tta: the config has no {" and no ".join(absent)}')
    refuse_tta_with_memory(cfg.model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def apply_checkpoint(cfg: Config, checkpoint: str) -> None:
    """What to test: a checkpoint file, or for models that load one a folder (`model.checkpoint`).

    Raises:
        UserError: a folder for a model that takes none.
    """
    cfg.load_from, cfg.resume = checkpoint, False
    if os.path.isdir(checkpoint):
        if 'checkpoint' not in cfg.model:
            raise UserError(f'{checkpoint}: is a folder, and this model takes a checkpoint file')
        cfg.model.checkpoint, cfg.load_from = checkpoint, None


def apply_fuse(cfg: Config) -> None:
    """`--fuse`: the model is fused for inference (runtime/fuse.py) when its weights are there and testing begins."""
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or ()), dict(type='FuseHook')]


def _datasets(node: Any) -> Iterator[dict]:
    """A data-set config and those it wraps."""
    if isinstance(node, Mapping):
        yield node  # type: ignore[misc]
        yield from _datasets(node.get('dataset'))
        for part in node.get('datasets', ()):
            yield from _datasets(part)


def _takes_seed(kind: Any) -> bool:
    from mmdet3d.registry import DATASETS
    found = DATASETS.get(kind) if isinstance(kind, str) else kind
    return found is not None and 'seed' in inspect.signature(found).parameters


# -- processes --------------------------------------------------------------------------------------------------------
def prepare_distributed(cfg: Config, launcher: str) -> None:
    """Sets the launcher; without CUDA also starts gloo and keeps the model on the CPU.

    MMEngine's own start calls `torch.cuda.set_device` and its default wrapper passes `device_ids`: both fail without
    CUDA. It skips its start where the processes are connected already.

    Raises:
        UserError: if the launcher's environment is not there.
    """
    cfg.launcher = launcher
    if launcher == 'none' or torch.cuda.is_available():
        return
    _set_rendezvous(launcher)
    settings = cfg.get('env_cfg', {}).get('dist_cfg', {})
    if not dist.is_initialized():
        dist.init_process_group('gloo', timeout=datetime.timedelta(seconds=settings.get('timeout', 1800)))
    wrapper = dict(cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel', broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False)))
    wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper


def _set_rendezvous(launcher: str) -> None:
    """Fills torch's RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT from what the launcher sets."""
    names = {'slurm': ('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
             'mpi': ('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_LOCAL_RANK'),
             'pytorch': ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')}[launcher]
    absent = [name for name in names if name not in os.environ]
    if absent:
        script = {'slurm': 'tools/slurm_train.sh', 'mpi': 'mpirun', 'pytorch': 'tools/dist_train.sh'}[launcher]
        raise UserError(f'--launcher {launcher}: {", ".join(absent)} is not set; start with {script}')
    for name, source in zip(('RANK', 'WORLD_SIZE', 'LOCAL_RANK'), names):
        os.environ[name] = os.environ[source]
    if launcher == 'slurm' and 'MASTER_ADDR' not in os.environ:
        nodes = ['scontrol', 'show', 'hostname', os.environ['SLURM_NODELIST']]
        os.environ['MASTER_ADDR'] = subprocess.run(nodes, capture_output=True, text=True, check=True).stdout.split()[0]
    os.environ.setdefault('MASTER_ADDR', '127.0.0.1')
    os.environ.setdefault('MASTER_PORT', '29500')


def complete_config(cfg: Config) -> None:
    """What the command line has not done with the config yet: mmdet3d's own tools only read and merge it. May be called again.

    Raises:
        UserError: for `--show` and `--tta` where they cannot work, in the words of our own tools.
    """
    follow_alignment(cfg)
    prepare_distributed(cfg, cfg.get('launcher', 'none'))
    hook = (cfg.get('default_hooks') or {}).get('visualization') or {}
    if hook.get('type') == 'BEVVisualizationHook':
        if hook.pop('show', False):
            raise UserError('--show: ' + _PICTURES_TO_FILES.format(hook['type']))
        for switch in ('vis_task', 'wait_time'):  # mmdet3d's tool wants a task, and these pictures are the same for all
            hook.pop(switch, None)
    refuse_tta_with_memory(cfg.model.get('module') or {} if 'tta_model' in cfg else {})


def refuse_tta_with_memory(model: Mapping[str, Any]) -> None:
    """Raises UserError where the model that is to see every frame several times has a memory."""
    if model.get('temporal') is not None:
        raise UserError('--tta: cannot go with model.temporal: the memory would see every frame several times; leave '
                        '--tta out')


def build_runner(cfg: Config, trust_checkpoint: bool = False, phase: str | None = None) -> Runner:
    """The config's Runner: MemFusionRunner unless `runner_type` says otherwise. Checkpoints load safely.

    Args:
        cfg: the config.
        trust_checkpoint: read pickles without protection.
        phase: 'train', 'val' or 'test', where that is known: the run is then checked before a folder is made for it, not
            only when that phase begins.
    """
    if phase is not None and cfg.get('runner_type', 'MemFusionRunner') == 'MemFusionRunner':
        check_run(cfg, phase)
    install_safe_loading(trust_checkpoint)
    if not torch.cuda.is_available():
        keep_large_blocks()
    return RUNNERS.build(cfg) if 'runner_type' in cfg else MemFusionRunner.from_cfg(cfg)
