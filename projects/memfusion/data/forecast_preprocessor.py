"""Data preprocessor. In: a collated batch of clips with agents. Out: ClipDataPreprocessor's, rasters, agents."""

from __future__ import annotations

from typing import Any

import torch
from mmdet3d.registry import MODELS

from projects.memfusion.structures import Agents

from .clip_preprocessor import ClipDataPreprocessor
from .transforms.bev_rasters import RASTER_KEY


@MODELS.register_module()
class ForecastDataPreprocessor(ClipDataPreprocessor):
    """ClipDataPreprocessor for the clips of NuScenesForecastDataset.

    Adds to `inputs`: `agents`, Agents of the B clips, padded to the clip with most of them; `rasters`, (B, T, 3, h, w)
    float32 where the pipeline draws them, zeros where a frame is padding. Both on the device. The last frame's data sample of
    each clip has its own agents (B = 1, on the host) in the field `agents`.
    """

    def forward(self, data: dict[str, Any] | list[dict[str, Any]], training: bool = False) -> dict[str, Any]:
        """`data` is what pseudo_collate makes of a batch of clips: a list of T dicts of B frames (or one such dict)."""
        steps = data if isinstance(data, list) else [data]
        agents = steps[-1]['inputs'].get('agents')
        if agents is None:
            raise ValueError("the batch has no inputs['agents']: ForecastDataPreprocessor takes clips of "
                             'NuScenesForecastDataset')
        own = ('agents', RASTER_KEY)
        rest = [{**step, 'inputs': {key: value for key, value in step['inputs'].items() if key not in own}} for step in steps]
        result = super().forward(rest, training)
        result['inputs']['agents'] = Agents.cat(agents).to(self.device)
        for sample, one in zip(result['data_samples'][len(steps) - 1::len(steps)], agents):
            sample.set_field(one, 'agents')
        if RASTER_KEY in steps[0]['inputs']:
            rasters = torch.stack([torch.stack(list(step['inputs'][RASTER_KEY])) for step in steps], dim=1)
            result['inputs']['rasters'] = rasters.to(self.device, non_blocking=True)
        return result
