"""Hook. In: training clips, before training. Out: what the memory stores of BEV cells, fitted to trained encoders."""

from __future__ import annotations

from typing import Any

import torch
from mmdet3d.registry import HOOKS
from mmengine.dataset import pseudo_collate
from mmengine.dist import broadcast, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor

from projects.memfusion.data.seeding import item_seed, seeded


@HOOKS.register_module()
class FitValuesHook(Hook):
    """Calls `model.temporal.fit_values` with BEV features of training frames, so that what is copied is from the first step on
    what the head can read, and not its part in a random subspace. For encoders that `load_from` gives.

    The first process fits, the others get its numbers. A run that is resumed keeps what it has. No random number of the run
    is drawn.

    Args:
        num_clips: training clips, evenly over the data set, whose frames are encoded.
        num_cells: cells drawn of all their frames.
    """

    def __init__(self, num_clips: int = 16, num_cells: int = 40_000) -> None:
        if num_clips < 1 or num_cells < 1:
            raise ValueError(f'FitValuesHook.num_clips and num_cells must be at least 1, got {num_clips} and {num_cells}')
        self.num_clips, self.num_cells = num_clips, num_cells

    def before_train(self, runner: Runner) -> None:
        """Raises ValueError where the memory stores nothing that is fitted, or no clip holds a frame."""
        model: Any = runner.model
        while is_model_wrapper(model):
            model = model.module
        temporal: Any = getattr(model, 'temporal', None)
        if not hasattr(temporal, 'fit_values'):
            raise ValueError(f'FitValuesHook: model.temporal ({type(temporal).__name__}) has no values that are fitted; leave '
                             'the hook out of custom_hooks, or use CopyMemory, CopyGRU or StackFusion(copy=True)')
        if runner.iter > 0:
            return
        if is_main_process():
            cells = self._cells(model, runner.train_dataloader.dataset)
            temporal.fit_values(cells)
            runner.logger.info(f'values of {type(temporal).__name__} fitted to {len(cells)} BEV cells of training frames')
        for tensor in temporal.state_dict().values():
            broadcast(tensor)

    @torch.no_grad()
    def _cells(self, model: Any, dataset: Any) -> Tensor:
        """(N, C) features of cells of frames that are there."""
        draw, found, training = torch.Generator().manual_seed(0), [], model.training
        count = min(self.num_clips, len(dataset))
        model.eval()
        try:
            for number in range(count):
                index = number * len(dataset) // count
                with seeded(item_seed(0, 0, index)):
                    data = model.data_preprocessor(pseudo_collate([dataset[index]]))
                clip = model.encode(data['inputs'])
                frames = [frame for frame, valid in zip(clip.bev[0], clip.valid[0]) if valid]
                for frame in frames:
                    places = torch.randint(frame[0].numel(), (max(1, self.num_cells // (count * len(frames))),), generator=draw)
                    found.append(frame.flatten(1)[:, places.to(frame.device)].T.float())
        finally:
            model.train(training)
        if not found:
            raise ValueError(f'FitValuesHook: none of {count} training clips holds a frame')
        return torch.cat(found)
