"""Checks of a run, tables. Out: the kind and limits of the settings that a Runner reads, and of names that classes share."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any


@dataclass(frozen=True)
class Limits:
    """The numbers that a setting takes, those in a list each.

    Attributes:
        low, high: the least and the greatest.
        above: `low` itself is none.
        below: `high` itself is none.
        infinite: the infinities are among them.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    infinite: bool = False

    def admit(self, value: Any) -> bool:
        """Whether a number, or every number of a list, lies within; True for whatever is no number."""
        if isinstance(value, Mapping):
            return True
        if isinstance(value, (list, tuple)):
            return all(map(self.admit, value))
        if not isinstance(value, Real) or isinstance(value, bool):
            return True
        if math.isnan(value) or (math.isinf(value) and not self.infinite):
            return False
        number = float(value)
        enough = number > self.low if self.above else number >= self.low
        return enough and (number < self.high if self.below else number <= self.high)

    def __str__(self) -> str:
        """' of at least 1', ' from 0 to 1', ..., or nothing."""
        if math.isfinite(self.high):
            end = 'below' if self.below else 'to'
            return f' {"above" if self.above else "from"} {self.low:g} {end} {self.high:.10g}'
        if math.isfinite(self.low):
            return f' above {self.low:g}' if self.above else f' of at least {self.low:g}'
        return ''


COUNT, SIZE, SHARE = Limits(0), Limits(1), Limits(0, 1)
AMOUNT, POSITIVE, FINITE = Limits(0), Limits(0, above=True), Limits()


@dataclass(frozen=True)
class Setting:
    """What the settings at a path take; `*` in the path is any one part, or the beginning of one."""

    path: str
    hint: Any
    limits: Limits = FINITE

    def pattern(self) -> str:
        """The path as a regular expression."""
        return re.escape(self.path).replace(r'\*', r'[^.]*')


Number, Whole = float | None, int | None
Numbers = float | Sequence[float]
SETTINGS = (
    Setting('work_dir', str), Setting('load_from', str | None), Setting('resume', bool), Setting('log_level', int | str),
    Setting('experiment_name', str | None),
    Setting('*_dataloader.batch_size', int, SIZE), Setting('*_dataloader.num_workers', int, COUNT),
    Setting('*_dataloader.prefetch_factor', Whole, SIZE), Setting('*_dataloader.persistent_workers', bool),
    Setting('*_dataloader.pin_memory', bool), Setting('*_dataloader.drop_last', bool),
    Setting('*_dataloader.timeout', float, AMOUNT), Setting('*_dataloader.num_batch_per_epoch', Whole, SIZE),
    Setting('*_dataloader.sampler.shuffle', bool),
    Setting('train_cfg.max_epochs', int, SIZE), Setting('train_cfg.max_iters', int, SIZE),
    Setting('train_cfg.val_interval', int, SIZE), Setting('train_cfg.val_begin', int, COUNT),
    Setting('train_cfg.by_epoch', bool),
    Setting('auto_scale_lr.base_batch_size', int, SIZE), Setting('auto_scale_lr.enable', bool),
    Setting('randomness.seed', Whole, Limits(0, 2**32 - 1)), Setting('randomness.deterministic', bool),
    Setting('randomness.diff_rank_seed', bool),
    Setting('optim_wrapper.accumulative_counts', int, SIZE),
    Setting('optim_wrapper.loss_scale', float | str | dict, POSITIVE),
    Setting('optim_wrapper.clip_grad', dict | None),
    Setting('optim_wrapper.clip_grad.max_norm', float, Limits(0, above=True, infinite=True)),
    Setting('optim_wrapper.clip_grad.clip_value', float, POSITIVE),
    Setting('optim_wrapper.clip_grad.norm_type', float, Limits(0, infinite=True)),
    Setting('optim_wrapper.optimizer.lr', float, AMOUNT), Setting('optim_wrapper.optimizer.weight_decay', float, AMOUNT),
    Setting('optim_wrapper.optimizer.momentum', float, SHARE), Setting('optim_wrapper.optimizer.dampening', float, SHARE),
    Setting('optim_wrapper.optimizer.eps', float, POSITIVE), Setting('optim_wrapper.optimizer.alpha', float, SHARE),
    Setting('optim_wrapper.optimizer.betas', tuple[float, float], Limits(0, 1, below=True)),
    Setting('optim_wrapper.optimizer.amsgrad', bool), Setting('optim_wrapper.optimizer.nesterov', bool),
    Setting('optim_wrapper.paramwise_cfg.*_mult', float, AMOUNT),
    Setting('optim_wrapper.paramwise_cfg.custom_keys.*.*_mult', float, AMOUNT),
    Setting('default_hooks.checkpoint.interval', int, Limits(-1)), Setting('default_hooks.checkpoint.by_epoch', bool),
    Setting('default_hooks.checkpoint.max_keep_ckpts', int, Limits(-1)),
    Setting('default_hooks.checkpoint.save_best', str | Sequence[str] | None),
    Setting('default_hooks.logger.interval', int, SIZE), Setting('log_processor.window_size', int, SIZE),
    Setting('*_evaluator.jsonfile_prefix', str | None), Setting('*_evaluator.*.jsonfile_prefix', str | None),
    Setting('*_dataloader.dataset.metainfo', dict | None),
    *(Setting(f'param_scheduler{place}.{name}', hint, limits) for place in ('', '.*', '.*.*') for name, hint, limits in (
        ('begin', float, AMOUNT), ('end', float, Limits(0, above=True, infinite=True)), ('T_max', Number, POSITIVE),
        ('eta_min', Number, FINITE), ('eta_min_ratio', Number, FINITE), ('eta_max', Numbers, AMOUNT),
        ('pct_start', float, SHARE),
        ('div_factor', float, POSITIVE), ('final_div_factor', float, POSITIVE), ('total_steps', Whole, SIZE),
        ('milestones', Sequence[float], AMOUNT), ('gamma', float, POSITIVE), ('start_factor', float, Limits(0, 1, above=True)),
        ('end_factor', float, SHARE), ('factor', float, SHARE), ('step_size', float, POSITIVE), ('power', float, POSITIVE),
        ('periods', Sequence[float], POSITIVE), ('by_epoch', bool, FINITE), ('convert_to_iter_based', bool, FINITE))),
    Setting('model.data_preprocessor.voxel_layer.max_num_points', int, Limits(-1)),
    Setting('model.data_preprocessor.voxel_layer.max_voxels', int | Sequence[int], Limits(-1)),
    *(Setting(f'model.t*_cfg.pts.{name}', hint, limits) for name, hint, limits in (
        ('score_threshold', Number, SHARE), ('score_thr', Number, SHARE), ('nms_thr', Numbers, AMOUNT),
        ('pre_max_size', int | Sequence[int], SIZE), ('post_max_size', int | Sequence[int], SIZE), ('max_per_img', int, SIZE),
        ('max_num', int, SIZE), ('nms_pre', int, SIZE), ('min_radius', Numbers, AMOUNT), ('gaussian_overlap', float, SHARE),
        ('max_objs', int, SIZE), ('dense_reg', int, COUNT), ('code_weights', Sequence[float], AMOUNT),
        ('post_center_limit_range', Sequence[float], FINITE))),
    Setting('model.test_cfg.mode', str), Setting('model.test_cfg.seq_len', int, SIZE),
    Setting('model.test_cfg.stride', int, SIZE),
    Setting('model.train_cfg.loss_frames', str), Setting('model.train_cfg.grad_frames', Whole, SIZE),
    Setting('model.train_cfg.frozen', Sequence[str]),
    Setting('model.pts_bbox_head.inputs.num_frames', int, COUNT),  # 0 is LiDAR alone
)
_ALL = re.compile('|'.join(f'({setting.pattern()})' for setting in SETTINGS))


def setting_of(path: str) -> Setting | None:
    """What is said of the setting at a path, if anything."""
    found = _ALL.fullmatch(path)
    return None if found is None or found.lastindex is None else SETTINGS[found.lastindex - 1]


_BY_NAME = (
    (r'voxel_size|scale_m|depths_m', POSITIVE), (r'use_dim', COUNT),
    # Of our own classes only: others' code gives -1 or 0 meanings of its own.
    (r'(.+_)?(dim|channels|stride|size|width|upscale|interval|seq_len|frame_stride|out_size_factor)', SIZE),
    (r'(num|max)_(frames|mem_frames|heads|points|agents|classes|prototypes|elements|sweeps|per_img|boxes|samples|objs)', SIZE),
    (r'(mem_every|top_k|block_cells|grad_frames|min_mem_frames|hidden|grid|strides)', SIZE),
    (r'(prob|ratio|flip_ratio_.+|teacher_forcing|block_dropout|(score_)?(threshold|thr)|min_overlap)', SHARE),
    (r'random_share|active_ratio', SHARE),
    (r'(alpha|.*_weights?|.+_std|brightness_delta|rotation_deg|translation_m|softness_px|radius_px|match_m|.+_(s|gap_s))',
     AMOUNT),
    (r'(sweeps_num|seed|level|levels|min_truth|begin|finish|extra_channels|load_dim)', COUNT),
)
_ANYBODYS: Mapping[str, tuple[Any, Limits]] = {
    'sweeps_num': (int, COUNT), 'load_dim': (int, Limits(3)), 'flip_ratio_bev_horizontal': (Any, SHARE),
    'flip_ratio_bev_vertical': (Any, SHARE), 'scale_ratio_range': (Any, POSITIVE), 'translation_std': (Any, AMOUNT),
    'rot_range': (Any, FINITE), 'in_channels': (Any, SIZE), 'time_offset_s': (Any, FINITE)}
"""Names that mean the same in everybody's classes."""


def limits_of(name: str, ours: bool) -> tuple[Any, Limits]:
    """What is known of an argument by its name: an annotation, and limits; `ours` says whose class it belongs to."""
    if name in _ANYBODYS:
        return _ANYBODYS[name]
    if not ours:
        return Any, Limits(infinite=True)
    return Any, next((limits for pattern, limits in _BY_NAME if re.fullmatch(pattern, name)), FINITE)
