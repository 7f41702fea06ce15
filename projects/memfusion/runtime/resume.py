"""Runtime. In: a checkpoint saved inside an epoch. Out: a training loop that goes on with that epoch's next batch.

MMEngine's loop starts the epoch anew and so trains some items twice, with the learning rates of steps that do not exist.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, fields
from itertools import islice
from typing import Any, cast

from mmengine.dist import broadcast_object_list, get_world_size
from mmengine.optim import OptimWrapper
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader, IterableDataset

from projects.common.random_state import random_state, set_random_state

from .errors import UserError

POSITION_KEY = 'memfusion_position'
_ELSE = ('resume with the same, or from a checkpoint saved between two epochs, or start from its weights: --cfg-options '
         'load_from=FILE')


@dataclass(frozen=True)
class Position:
    """Where a run is in its epoch, and what the epoch's order of batches depends on; numbers only.

    Attributes:
        batches_done: of this epoch; of the whole run where the loop counts steps.
        batches_per_epoch: batches that one process takes in an epoch. Here and below None is not known.
        batch_size: per process.
        num_processes: that share the epoch.
        num_items: length of the data set.
        by_epoch: False for a loop that counts steps: its whole run is one epoch.
        order: CRC-32 of the batches done so far, in rank 0; None where it is not known.
    """

    batches_done: int
    batches_per_epoch: int | None
    batch_size: int | None
    num_processes: int | None
    num_items: int | None
    by_epoch: bool
    order: int | None = None

    @classmethod
    def of_loader(cls, loader: DataLoader, batches_done: int, by_epoch: bool, order: int | None = None) -> Position:
        """The position of this run."""
        batch_size = getattr(loader.batch_sampler, 'batch_size', loader.batch_size)
        endless = isinstance(loader.dataset, IterableDataset)
        num_batches, num_items = (None, None) if endless else (len(loader), len(cast(Sized, loader.dataset)))
        return cls(batches_done, num_batches, batch_size, get_world_size(), num_items, by_epoch, order)

    @classmethod
    def from_meta(cls, saved: Mapping[str, Any]) -> Position:
        """Reads what `asdict` wrote; keys of later versions are left out."""
        return cls(**{field.name: saved[field.name] for field in fields(cls)})

    @property
    def inside(self) -> bool:
        """Whether batches of the epoch are still to come."""
        return self.batches_done > 0 and (not self.by_epoch or self.batches_done != self.batches_per_epoch)

    def describe(self) -> str:
        """What the order of batches depends on, for messages."""
        known = [(self.batch_size, 'train_dataloader.batch_size={}'),
                 (self.num_processes, '{} process' if self.num_processes == 1 else '{} processes'),
                 (self.num_items, '{} items'), (self.batches_per_epoch, '{} batches per epoch')]
        return ', '.join(text.format(value) for value, text in known if value is not None)

    def fits(self, other: Position) -> bool:
        """Whether both runs cut their data into the same batches."""
        return all(mine is None or theirs is None or mine == theirs for mine, theirs in zip(self._cut(), other._cut()))

    def _cut(self) -> tuple[int | None, ...]:
        return self.batch_size, self.num_processes, self.num_items, self.batches_per_epoch


class EpochBatches:
    """A loader's batch sampler that can leave out the first batches of an epoch and knows the order of those it gave."""

    def __init__(self, batches: Iterable[Sequence[int]]) -> None:
        self.batches = batches
        self.sampler = getattr(batches, 'sampler', None)  # DistSamplerSeedHook tells it the epoch
        self.batch_size, self.drop_last = getattr(batches, 'batch_size', None), getattr(batches, 'drop_last', None)
        self._started: Iterator[Sequence[int]] | None = None
        self._orders = [0]

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]  # of the whole epoch: loops and logs count with it

    def __iter__(self) -> Iterator[Sequence[int]]:
        started, self._started = self._started, None  # at the first `next`: a loader with workers makes an iterator too many
        if started is None:
            started, self._orders = iter(self.batches), [0]
        yield from self._noted(started)

    def leave_out(self, count: int) -> int | None:
        """Takes the first `count` batches of the epoch that begins now; the next iterator goes on behind them.

        Returns:
            CRC-32 of their indices, as `order` gives it; None if there are fewer.
        """
        self._started, self._orders = iter(self.batches), [0]
        for _ in self._noted(islice(self._started, count)):
            pass
        return self.order(count)

    def order(self, count: int) -> int | None:
        """CRC-32 of the indices in the first `count` batches of the epoch; None if fewer were taken."""
        return self._orders[count] if count < len(self._orders) else None

    def _noted(self, batches: Iterator[Sequence[int]]) -> Iterator[Sequence[int]]:
        orders = self._orders
        for batch in batches:
            orders.append(zlib.crc32(','.join(map(str, batch)).encode(), orders[-1]))
            yield batch


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """MMEngine's EpochBasedTrainLoop that, in a resumed run, goes on inside an epoch; otherwise the same, step by step.

    The batches that are done are left out where indices are drawn, so no data are read for them. Hooks see the epoch's
    true batch numbers and length.
    """

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, max_epochs: int, val_begin: int = 1,
                 val_interval: int = 1, dynamic_intervals: list[tuple[int, int]] | None = None) -> None:
        super().__init__(runner, dataloader, max_epochs, val_begin, val_interval, dynamic_intervals)
        self._batches: EpochBatches | None = None
        if self.dataloader.batch_sampler is not None:
            self._batches = EpochBatches(self.dataloader.batch_sampler)
            # DataLoader refuses a change because it would not reach running workers; none has been started yet.
            object.__setattr__(self.dataloader, 'batch_sampler', self._batches)
        self._first_iter = 0  # iteration with which this epoch began
        self._resumed: Position | None = None

    def position(self, epoch: int, iteration: int) -> Position:
        """Where a checkpoint that says `epoch` and `iteration` stands: both count what is done."""
        done = 0 if epoch > self._epoch else iteration - self._first_iter
        order = self._batches.order(done) if self._batches is not None and done else None
        return Position.of_loader(self.dataloader, done, True, order)

    def go_on_from(self, position: Position, iteration: int) -> None:
        """The next `run_epoch` leaves out the batches that are done."""
        self._first_iter, self._resumed = iteration - position.batches_done, position

    def run_epoch(self) -> None:
        """One epoch, or what a resumed run has left of it."""
        position, self._resumed = self._resumed, None
        if position is None or not position.batches_done:
            super().run_epoch()
        else:
            self.runner.call_hook('before_train_epoch')
            self.runner.model.train()
            rest = self._rest(position) if position.inside else iter(())
            for index, data_batch in enumerate(rest, start=position.batches_done):
                self.run_iter(index, data_batch)
            self.runner.call_hook('after_train_epoch')
            self._epoch += 1
        self._first_iter = self._iter

    def _rest(self, position: Position) -> Iterator[Any]:
        """Iterates the loader behind the batches that are done, and draws no random number for it."""
        if self._batches is None:
            raise UserError('train_dataloader has no batches (batch_size=None): a run cannot be resumed inside an epoch; '
                            + _ELSE)
        states = random_state()
        order = self._batches.leave_out(position.batches_done)
        same = [position.order is None or order == position.order]
        broadcast_object_list(same)  # rank 0's order is in the checkpoint; all ranks stop together
        if not same[0]:
            raise UserError(
                f'the first {position.batches_done} batches of epoch {self._epoch + 1} are others in this run than in the '
                'one that is resumed: train_dataloader.sampler or the data set changed, or the sampler draws a new order each '
                f'time; {_ELSE}')
        iterator = iter(self.dataloader)
        set_random_state(states)
        return iterator


# -- reading and checking a checkpoint's position ---------------------------------------------------------------------
def position_of(loop: BaseLoop, epoch: int, iteration: int) -> Position | None:
    """What a checkpoint of this loop says of its position; None for a loop of another kind."""
    if isinstance(loop, ResumableTrainLoop):
        return loop.position(epoch, iteration)
    if isinstance(loop, IterBasedTrainLoop):
        return Position.of_loader(loop.dataloader, iteration, by_epoch=False)
    return None


def to_meta(position: Position) -> dict[str, int | None]:
    """Plain numbers, which torch's safe loader reads."""
    return asdict(position)


def resume_position(loop: BaseLoop, optim_wrapper: Any, checkpoint: Mapping[str, Any], filename: str, seed: int) -> None:
    """Tells the loop where in its epoch a checkpoint stands.

    Args:
        loop: the training loop; optim_wrapper: what trains.
        checkpoint: as loaded, with `meta` and `message_hub`.
        filename: for messages; seed: this run's.

    Raises:
        UserError: if the run cannot go on there as the uninterrupted one would; it names the file and what differs.
    """
    meta = checkpoint['meta']
    epoch, iteration = int(meta['epoch']), int(meta['iter'])
    by_epoch = not isinstance(loop, IterBasedTrainLoop)
    here = Position.of_loader(loop.dataloader, 0, by_epoch)
    saved = Position.from_meta(meta[POSITION_KEY]) if POSITION_KEY in meta else _older(checkpoint, here, filename)
    if saved.inside:
        _check_inside(saved, here, loop, filename, epoch)
        if meta.get('seed') not in (None, seed):
            raise UserError(f'{filename}: was saved inside an epoch by a run with seed {meta["seed"]}; this run has seed '
                            f'{seed}: what is left would come in another order; add --seed {meta["seed"]} (mmdet3d\'s tools: '
                            f'--cfg-options randomness.seed={meta["seed"]})')
    waiting = iteration % _steps_per_update(optim_wrapper)
    if waiting and iteration < loop.max_iters:
        told = (f'{filename}: {waiting} steps were done since the last update of the weights '
                f'(optim_wrapper.accumulative_counts), and their gradients are not in the checkpoint')
        if saved.inside:
            raise UserError(f'{told}; resume from an iter_N.pth whose N can be divided by {_steps_per_update(optim_wrapper)}')
        loop.runner.logger.warning(f'{told}: the run goes on without them')
    if isinstance(loop, ResumableTrainLoop):
        loop.go_on_from(saved, iteration)


def _check_inside(saved: Position, here: Position, loop: BaseLoop, filename: str, epoch: int) -> None:
    where = (f'after {saved.batches_done} of {saved.batches_per_epoch} batches of epoch {epoch + 1}' if saved.by_epoch
             else f'after {saved.batches_done} steps of a loop that counts steps')
    if saved.by_epoch != here.by_epoch or not isinstance(loop, ResumableTrainLoop | IterBasedTrainLoop):
        raise UserError(f'{filename}: was saved {where}, which train_cfg.type {type(loop).__name__} cannot go on from; {_ELSE}')
    if not saved.fits(here):
        raise UserError(f'{filename}: was saved {where} with {saved.describe()}; this run has {here.describe()}: what is '
                        f'left would be other batches; {_ELSE}')


def _older(checkpoint: Mapping[str, Any], here: Position, filename: str) -> Position:
    """The position of a checkpoint that does not say it, from MMEngine's own notes."""
    meta, info = checkpoint['meta'], checkpoint['message_hub'].get('runtime_info', {})
    epoch, iteration = int(meta['epoch']), int(meta['iter'])
    unknown = dict(batch_size=None, num_processes=None, num_items=None)
    if not here.by_epoch:
        return Position(**{**asdict(here), **unknown, 'batches_per_epoch': None, 'batches_done': iteration})
    per_epoch, begun = here.batches_per_epoch, info.get('epoch')
    assert per_epoch is not None  # a loop over epochs knows their length
    if info.get('max_epochs') and info.get('max_iters'):
        per_epoch = int(info['max_iters']) // int(info['max_epochs'])
    done = iteration - epoch * per_epoch
    if begun is not None and epoch > int(begun):  # saved when the epoch was over, whatever its length
        done = 0
    elif not 0 <= done <= per_epoch:
        raise UserError(f'{filename}: says epoch {epoch} and step {iteration}, which does not fit {per_epoch} batches per '
                        f'epoch, so it is not known how much of the epoch is done; {_ELSE}')
    return Position(**{**asdict(here), **unknown, 'batches_per_epoch': per_epoch, 'batches_done': done})


def _steps_per_update(optim_wrapper: Any) -> int:
    """The most steps whose gradients any of the optimizers adds up."""
    wrappers = [optim_wrapper] if isinstance(optim_wrapper, OptimWrapper) else list(getattr(optim_wrapper, 'optim_wrappers',
                                                                                            {}).values())
    return max((getattr(wrapper, '_accumulative_counts', 1) for wrapper in wrappers), default=1)
