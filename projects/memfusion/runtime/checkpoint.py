"""Runtime. In: the path of a checkpoint. Out: what torch's safe loader read, or weights in the model they belong to.

A pickle can run any program when it is read. torch's `weights_only` loader builds only what is on a list; MMEngine's
checkpoints hold a few harmless types beside weights, which are put on that list here. Torch before 2.4 has no such list: there
our own reader has it.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import pickle
import re
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PosixPath
from typing import Any, cast

import mmengine
import mmengine.runner.checkpoint as mmengine_checkpoint
import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from torch import Tensor, nn

from projects.common.numpy_stand_ins import NumpyStandIns, RefusedError
from projects.common.safe_pickle import files_are_trusted, refusal
from projects.common.safe_tensors import load_listed

from .errors import DownloadError, UserError


def _takes_names() -> bool:
    """Whether torch has a list of safe globals that may be under other names than their own (2.6 and newer)."""
    add = getattr(torch.serialization, 'add_safe_globals', None)
    return add is not None and 'uple' in str(inspect.signature(add))


_CAN_ALLOW = _takes_names()
_BOX_HEAD = 'pts_bbox_head.'
_ADDED_BRANCH = re.compile(r'pts_bbox_head\.task_heads\.\d+\.seen\.')
_SHOWN_KEYS = 4
# What torch.load and pickle raise for files that are damaged, not checkpoints, or refused.
_READING_ERRORS = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError, ImportError,
    OSError)


# -- what the safe loader may build -----------------------------------------------------------------------------------
def _method(owner: object, name: object) -> Callable:
    """What stands in for `getattr`: it gives a few methods by their names and nothing else.

    HistoryBuffers keep their statistics, and OneCycle schedulers the curve they follow, as methods of their class.
    """
    if owner is HistoryBuffer and name in ('min', 'max', 'current', 'mean'):
        return getattr(HistoryBuffer, str(name))
    if owner is _ONE_CYCLE and name in ('_annealing_cos', '_annealing_linear'):
        return getattr(OneCycleParamScheduler, str(name))
    raise RefusedError(f'builtins.getattr of {owner!r}, {name!r}')


def _no_instance(*args: Any) -> Any:
    """Stands in for a class that a checkpoint may name but not build."""
    raise RefusedError('mmengine.OneCycleParamScheduler')


@contextlib.contextmanager
def _as_torch_refuses() -> Iterator[None]:
    """A refusal in the words of torch's own loader."""
    try:
        yield
    except RefusedError as error:
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {error}') from None


def _named(function: Callable, name: str) -> Callable:
    """`function` under the full name that a pickle calls it by; the allow-list is keyed by that name."""

    def stand_in(*args: Any) -> Any:
        with _as_torch_refuses():
            return function(*args)

    stand_in.__module__, stand_in.__name__ = name.rsplit('.', 1)
    stand_in.__qualname__ = stand_in.__name__
    return stand_in


_NUMPY = NumpyStandIns()
_ONE_CYCLE = _named(_no_instance, f'{OneCycleParamScheduler.__module__}.OneCycleParamScheduler')


def _harmless_types() -> list[Any]:
    aliases = [_ONE_CYCLE, *(_named(function, name) for function, name in (
        (_method, 'builtins.getattr'), (_NUMPY.ndarray, 'numpy.ndarray'), (_NUMPY.dtype, 'numpy.dtype')))]
    for package in ('numpy.core', 'numpy._core'):  # numpy 1 and numpy 2
        aliases.append(_named(_NUMPY.reconstruct, f'{package}.multiarray._reconstruct'))
        aliases.append(_named(_NUMPY.scalar, f'{package}.multiarray.scalar'))
    # Their instances get a state, so torch's loader must know them; by a name that no file knows, it cannot call them.
    secret = uuid.uuid4().hex
    stateful = {np.ndarray, *(type(np.dtype(code)) for code in '?bhilqBHILQefdgFDSUMm')}
    hidden = [(kind, f'{secret}.{number}') for number, kind in enumerate(sorted(stateful, key=str))]
    plain = [HistoryBuffer, ConfigDict, PosixPath]
    return [*aliases, *hidden, *plain, defaultdict, deque, list, dict, tuple, frozenset]


def install_safe_loading(trust: bool = False) -> None:
    """Makes every MMEngine checkpoint loader of files and web addresses go through `safe_load`. May be called again.

    Args:
        trust: read pickles without protection (`--trust-checkpoint`), for files whose maker the user trusts.
    """
    if _CAN_ALLOW:
        torch.serialization.add_safe_globals(_ALLOWED)

    def load_from_local(filename: str, map_location: Any = None) -> Any:
        return safe_load(filename, map_location, trust)

    def load_from_http(
        filename: str, map_location: Any = None, model_dir: str | None = None, progress: bool = True,
    ) -> Any:
        return safe_load(_download(filename, model_dir, progress), map_location, trust)

    def load_from_torchvision(filename: str, map_location: Any = None) -> Any:
        return load_from_http(_torchvision_url(filename), map_location)

    loader = mmengine_checkpoint.CheckpointLoader
    loader.register_scheme(prefixes='', loader=load_from_local, force=True)
    loader.register_scheme(prefixes=['http://', 'https://'], loader=load_from_http, force=True)
    loader.register_scheme(prefixes='torchvision://', loader=load_from_torchvision, force=True)
    # The loaders of open-mmlab:// and mmcls:// call this function by its name in their module.
    mmengine_checkpoint.load_from_http = load_from_http


_ALLOWED = _harmless_types()


def _torchvision_url(name: str) -> str:
    """The web address of `torchvision://resnet50`, from the table in MMEngine: its own loader wants torchvision installed."""
    urls = mmengine.load(Path(mmengine.__file__).parent / 'hub' / 'torchvision_0.12.json')
    model = name.removeprefix('torchvision://')
    if model not in urls:
        close = difflib.get_close_matches(model, urls, n=3)
        hint = f' (did you mean {", ".join(close)}?)' if close else ''
        raise UserError(f'{name}: there is no such model{hint}; give the path or the web address of a checkpoint')
    return urls[model]


def _download(url: str, model_dir: str | None, progress: bool) -> str:
    """The local copy of a web address, fetched by rank 0 only."""
    folder = Path(model_dir) if model_dir else Path(torch.hub.get_dir()) / 'checkpoints'
    target = folder / url.split('?')[0].rsplit('/', 1)[-1]
    rank, _ = get_dist_info()
    if rank == 0 and not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(target), progress=progress)
        except OSError as error:
            raise DownloadError(f'{url}: cannot be fetched ({error}); fetch it yourself and give its path') from error
    barrier()
    return str(target)


# -- reading a file ---------------------------------------------------------------------------------------------------
def safe_load(path: str | Path, map_location: Any = None, trust: bool = False, types: Sequence[Callable] = (),
              mmap: bool = False) -> Any:
    """Reads a checkpoint file, or another file of torch.save that holds a dictionary, without letting it run anything.

    Args:
        path: a local file; `~` is expanded.
        map_location: as torch.load's.
        trust: read it without protection, as MEMFUSION_TRUST_FILES=1 does.
        types: what else it may hold, for files that are no checkpoints.
        mmap: as torch.load's.

    Returns:
        What was saved, as a rule a dict.

    Raises:
        UserError: naming the file, if it is missing, truncated, not a checkpoint, or holds objects that could run
            code.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f'{path}: there is no such checkpoint file; check the path{_neighbours(file)}')
    try:
        checkpoint = _load(file, map_location, trust or files_are_trusted(), types, mmap)
    except _READING_ERRORS as error:
        raise UserError(_reading_failed(file, error)) from error
    if not isinstance(checkpoint, dict) or not checkpoint:
        raise UserError(f'{file}: is not a checkpoint: it holds a {type(checkpoint).__name__} instead of a dictionary')
    return checkpoint


def _load(file: Path, map_location: Any, trust: bool, types: Sequence[Callable], mmap: bool) -> Any:
    with _as_torch_refuses(), _NUMPY.checked():
        if not trust and (types or not _CAN_ALLOW):
            return load_listed(file, [*_ALLOWED, *types], map_location, mmap)
        if _CAN_ALLOW:
            torch.serialization.add_safe_globals(_ALLOWED)
        return torch.load(file, map_location=map_location, weights_only=not trust, mmap=mmap or None)


def _neighbours(file: Path) -> str:
    names = sorted(p.name for p in file.parent.glob('*.pth')) if file.parent.is_dir() else []
    return f' (that folder has {", ".join(names[-_SHOWN_KEYS:])})' if names else ''


def _reading_failed(file: Path, error: Exception) -> str:
    text = str(error)
    if isinstance(error, RuntimeError) and 'CUDA' in text and 'deserialize' in text:
        return f"{file}: holds CUDA tensors and there is no CUDA device here; load it with map_location='cpu'"
    found = re.search(r'(?:GLOBAL |class |function )([A-Za-z_][\w.]*\.[\w.]+)', text)
    if isinstance(error, pickle.UnpicklingError) and found:
        return refusal(file, found[1], '--trust-files (or --trust-checkpoint, for checkpoints only)')
    with file.open('rb') as stream:
        head = stream.read(4)
    if head == b'PK\x03\x04':
        return (f'{file}: is truncated or damaged ({file.stat().st_size} bytes); copy or download it again, or take '
                'an earlier checkpoint')
    reason = 'is empty' if not head else 'is not a checkpoint, or is damaged'
    return f'{file}: {reason} ({file.stat().st_size} bytes); give a .pth file that training wrote'


# -- putting it into a model ------------------------------------------------------------------------------------------
def load_weights(
    model: nn.Module,
    checkpoint: dict[str, Any],
    path: str,
    allow_missing_slots: bool = False,
    revise_keys: Iterable[tuple[str, str]] = ((r'^module\.', ''),),
) -> None:
    """Loads a checkpoint's weights and insists that the model is the one they were trained for.

    Args:
        model: the model, wrapped or not.
        checkpoint: what `safe_load` gave; with or without the key 'state_dict'.
        path: for messages.
        allow_missing_slots: as in `check_architecture`.
        revise_keys: (pattern, replacement) applied to every key of the checkpoint.

    Raises:
        UserError: naming the file, the first keys and shapes that differ, and what to do; or the first weights that are NaN
            or infinite.
    """
    check_architecture(model, _state_dict(checkpoint, path, revise_keys), path, allow_missing_slots)


def check_architecture(
    model: nn.Module, state_dict: dict[str, Tensor], path: str, allow_missing_slots: bool = False,
) -> None:
    """Raises unless the weights are those of this model, and finite; loads them on the way.

    Loading is the only way to know: modules convert old layouts (spconv's) while they load.

    Args:
        model: the model, wrapped or not.
        state_dict: key to tensor.
        path: for messages.
        allow_missing_slots: accept that there is nothing at all of a top-level slot (`temporal`, `img_backbone`,
            `fusion_layer`, ...), or of the branch that `pts_bbox_head.seen_weight` adds, whose initial weights then stay: how
            a training phase starts from the previous one's. Where the model has no box head, as one that learns futures
            alone, the file's is left out.

    Raises:
        UserError: naming the file, the first keys and shapes that differ, and what to do.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = cast(nn.Module, model.module)
    try:
        missing, unexpected = model.load_state_dict(state_dict, strict=False)
        misfits: list[str] = []
    except RuntimeError as error:
        misfits = _misfits(str(error))  # torch lists every tensor that does not fit
        own = model.state_dict().keys()
        missing, unexpected = sorted(own - state_dict.keys()), sorted(state_dict.keys() - own)
    missing = [key for key in missing if not key.endswith('num_batches_tracked')]
    present = {key.split('.')[0] for key in state_dict}
    if allow_missing_slots and any(key.split('.')[0] in present for key in model.state_dict()):
        missing = [key for key in missing if key.split('.')[0] in present and not _ADDED_BRANCH.match(key)]
        if not any(key.startswith(_BOX_HEAD) for key in model.state_dict()):
            unexpected = [key for key in unexpected if not key.startswith(_BOX_HEAD)]
    if misfits or missing or unexpected:
        raise UserError(_architecture_message(path, misfits, missing, list(unexpected), allow_missing_slots))
    check_finite(state_dict, path)


def check_finite(state_dict: dict[str, Tensor], path: str) -> None:
    """UserError, naming the first parameters, where weights are NaN or infinite: they would predict nothing, in silence."""
    broken = [key for key, value in state_dict.items()
              if isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all())]
    if broken:
        more = f' and {len(broken) - _SHOWN_KEYS} more' if len(broken) > _SHOWN_KEYS else ''
        raise UserError(f'{path}: has weights that are NaN or infinite: {", ".join(broken[:_SHOWN_KEYS])}{more}. Its training '
                        'had diverged: take an earlier checkpoint')


def _state_dict(
    checkpoint: dict[str, Any], path: str, revise_keys: Iterable[tuple[str, str]],
) -> OrderedDict[str, Tensor]:
    """The checkpoint's weights under revised keys, with the version numbers that torch keeps beside them."""
    found = checkpoint.get('state_dict', checkpoint)
    if not isinstance(found, dict) or not any(isinstance(value, Tensor) for value in found.values()):
        raise UserError(f'{path}: has no weights (no "state_dict" of tensors); give a .pth file that training wrote')
    patterns = tuple(revise_keys)
    state: OrderedDict[str, Tensor] = OrderedDict()
    for key, value in found.items():
        for pattern, replacement in patterns:
            key = re.sub(pattern, replacement, key)
        state[key] = value
    state._metadata = getattr(found, '_metadata', OrderedDict())  # type: ignore[attr-defined]
    return state


def _misfits(text: str) -> list[str]:
    """'key: (shape in the file) in the file, (shape in the model) in the model' of each line of torch's message."""
    lines = []
    for line in (line.strip() for line in text.splitlines()[1:]):
        key = re.match(r'size mismatch for (\S+?):', line)
        shapes = re.findall(r'torch\.Size\(\[(.*?)\]\)', line)
        if key and len(shapes) == 2:
            lines.append(f'{key[1]} is ({shapes[0]}) in the file and ({shapes[1]}) in the model')
        elif line:
            lines.append(line)
    return lines


def _architecture_message(
    path: str, misfits: list[str], missing: list[str], unexpected: list[str], training: bool,
) -> str:
    parts = []
    for what, names in (('shapes differ', misfits), ('only in the model', missing), ('only in the file', unexpected)):
        if names:
            more = f' and {len(names) - _SHOWN_KEYS} more' if len(names) > _SHOWN_KEYS else ''
            parts.append(f'{what}: {", ".join(names[:_SHOWN_KEYS])}{more}')
    remedy = (
        'load_from takes a checkpoint of the same slots, or one that lacks whole slots; to load only what fits, set '
        "runner_type='Runner'" if training else
        "give the checkpoint's own config (its text is in the file under meta.cfg), or a checkpoint of this config")
    return f'{path}: is a checkpoint of another architecture: {"; ".join(parts)}. What to do: {remedy}'
