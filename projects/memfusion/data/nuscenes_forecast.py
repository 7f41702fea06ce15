"""Data set of agents to be predicted. In: nuScenes infos, tables, the prediction split. Out: clips with agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import DATASETS

from .agent_packing import pack_agents
from .agent_tracks import build_tracks
from .clip_frames import Clip
from .errors import DataError
from .nuscenes_sequence import NuScenesSequenceDataset
from .prediction_tables import SPLIT_FILE, chosen_tokens, prediction_helper, prediction_tokens
from .transforms.bev_rasters import RASTER_KEY, raster_shape
from .transforms.map_rasters import PLACE_KEY, RasterizeMap


@DATASETS.register_module()
class NuScenesForecastDataset(NuScenesSequenceDataset):
    """The samples with agents of nuScenes' prediction challenge, each with its history as a clip and all its agents.

    An item is what NuScenesSequenceDataset gives for the clip that ends at the sample (T packed frames, oldest first, moved
    into the last one's LiDAR frame; what lies before the scene is padding with `frame_valid=False`), and the last frame's
    `inputs['agents']`: Agents (B = 1); it is None in the others. Agents need not have been seen in all frames: see their
    `history_valid`. Past and future come from the devkit's PredictHelper, once, when the index is made.

    Args:
        data_root, ann_file, pipeline: as in NuScenesSequenceDataset; `ann_file` has to hold the samples of the split.
        split: 'train', 'train_val' or 'val' of v1.0-trainval (both of the first are scenes of its train infos), 'mini_train' or
            'mini_val' of v1.0-mini.
        version: the folder of the tables.
        history_frames: T, frames of history with the present one: 5 are 2 s at 2 Hz.
        tokens: some tokens of the split; all where empty.
        kwargs: NuScenesSequenceDataset's own arguments.

    Raises:
        ValueError: naming the key, for a bad value, or the token, for one that is not in the split.
        DataError: naming file and token, where the split file, tables or infos are missing or do not fit each other.
    """

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        pipeline: Sequence[Any] = (),
        split: str = 'train',
        version: str = 'v1.0-trainval',
        history_frames: int = 5,
        tokens: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        for key in ('seq_len', 'stride', 'frame_stride', 'frame_rate'):
            if key in kwargs:
                raise ValueError(f'{key} cannot go with forecasting: history_frames says how many keyframes (2 Hz) a clip has')
        if history_frames < 1:
            raise ValueError(f'history_frames must be at least 1, got {history_frames}')
        if kwargs.get('on_bad_frame', 'error') != 'error':
            raise ValueError("on_bad_frame='drop' cannot go with forecasting: the last frame would go without its agents")
        self.split, self.version = split, version
        self.tokens = chosen_tokens(prediction_tokens(data_root, split), tokens, split)
        align = kwargs.pop('align', 'loader' if history_frames > 1 else 'none')
        super().__init__(data_root=data_root, ann_file=ann_file, pipeline=pipeline, seq_len=history_frames, align=align,
                         **kwargs)

    def full_init(self) -> None:
        """Loads the infos, links frames to scenes, follows all agents through the tables, draws the maps that are needed."""
        if self._fully_initialized:
            return
        super().full_init()
        helper = prediction_helper(self.data_root, self.version)
        self.tracks = build_tracks(helper, self.tokens, self.seq_len)
        first = {helper.data.get('sample', sample)['scene_token']: sample
                 for sample in dict.fromkeys(token.partition('_')[2] for token in self.tokens)}
        self.places = {scene: helper.get_map_name_from_sample_token(sample) for scene, sample in first.items()}
        for transform in self.pipeline.transforms:
            if isinstance(transform, RasterizeMap):
                transform.load((self.data_root, place) for place in sorted(set(self.places.values())))

    def _clip_ends(self) -> np.ndarray:
        """Positions in the data list of the samples with agents, in its order."""
        position = {info['token']: number for number, info in enumerate(self.data_list)}
        rows: dict[int, list[int]] = {}
        for row, token in enumerate(self.tokens):
            sample = token.partition('_')[2]
            if sample not in position:
                raise DataError(f'{self.ann_file} has no sample {sample}, which token {token} of split {self.split!r} in '
                                f"{SPLIT_FILE} needs: 'train' and 'train_val' take the infos of the training scenes, 'val' "
                                'those of the validation scenes; make them with tools/create_data.py')
            rows.setdefault(position[sample], []).append(row)
        ends = sorted(rows)
        self.agent_rows = [rows[end] for end in ends]
        return np.array(ends, dtype=np.int64)

    def __getitem__(self, index: int) -> list[dict]:  # type: ignore[override]
        """The packed frames of item `index`, the last one with its agents."""
        frames = super().__getitem__(index)
        for frame in frames:
            frame['inputs']['agents'] = None
        meta = frames[-1]['data_samples'].metainfo
        tracks = self.tracks.rows(self.agent_rows[index])
        frames[-1]['inputs']['agents'] = pack_agents(tracks, np.linalg.inv(meta['global_from_lidar']), meta['bev_aug'])
        return frames

    def _metainfo_of(self, clip: Clip, row: int, info: dict) -> dict[str, Any]:
        place = self.data_root, self.places[info['scene_token']]
        return {**super()._metainfo_of(clip, row, info), PLACE_KEY: place}

    def _pad(self, clip: Clip, row: int, changes: dict[str, Any]) -> dict:
        padding = super()._pad(clip, row, changes)
        shape = raster_shape(self.pipeline.transforms)
        if shape is not None:
            padding['inputs'][RASTER_KEY] = torch.zeros(shape)
        return padding
