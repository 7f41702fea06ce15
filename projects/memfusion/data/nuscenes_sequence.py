"""Data set of clips. In: nuScenes infos. Out: a list of T packed frames, oldest first; the last one is the item's own frame."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmdet3d.datasets import NuScenesDataset
from mmdet3d.registry import DATASETS
from mmengine.logging import print_log

from .errors import BadFrameError, DataError
from .seeding import EpochCounter, check_classes, seeded
from .sequence_fields import ensure_sequence_fields, load_info_file
from .transforms.packing import pack_padding


@DATASETS.register_module()
class NuScenesSequenceDataset(NuScenesDataset):
    """nuScenes keyframes as clips that never cross a scene.

    A clip ends at a frame and reaches `seq_len - 1` frames back, `frame_stride` apart. What would lie before the scene's
    first frame is padding with `frame_valid=False`. In testing every frame is the end of one item, in data-set order.

    Args:
        seq_len: frames of a clip, T.
        stride: keyframes between the ends of neighbouring clips (training only); the last frame of a scene always ends one.
        frame_stride: keyframes between neighbouring frames of a clip.
        seed: part of the seed of every random draw.
        on_bad_frame: 'error', or 'drop': a frame whose files are broken becomes padding and is counted.
        kwargs: NuScenesDataset's own arguments.

    Raises:
        ValueError: naming the key, for seq_len, stride or frame_stride below 1, a clip longer than a scene, unknown classes,
            or filter_empty_gt=True (it would swap a frame without boxes for a random other one).
    """

    def __init__(
        self,
        *args: Any,
        seq_len: int = 1,
        stride: int = 1,
        frame_stride: int = 1,
        seed: int = 0,
        on_bad_frame: str = 'error',
        **kwargs: Any,
    ) -> None:
        for name, value in (('seq_len', seq_len), ('stride', stride), ('frame_stride', frame_stride)):
            if value < 1:
                raise ValueError(f'{name} must be at least 1, got {value}')
        if on_bad_frame not in ('error', 'drop'):
            raise ValueError(f"on_bad_frame must be 'error' or 'drop', got {on_bad_frame!r}")
        if kwargs.setdefault('filter_empty_gt', False):
            raise ValueError('filter_empty_gt=True cannot go with clips: it swaps a frame without boxes for a random '
                             'other one. Leave it out or set it to False')
        check_classes(kwargs.get('metainfo'))
        self.seq_len, self.stride, self.frame_stride, self.seed = seq_len, stride, frame_stride, seed
        self.on_bad_frame, self.num_dropped_frames = on_bad_frame, 0
        self._counter = EpochCounter()
        self._fully_initialized = False
        super().__init__(*args, **kwargs)

    def set_epoch(self, epoch: int) -> None:
        """Tells all workers which epoch they are in (EpochSeedHook calls it)."""
        self._counter.set(epoch)

    # -- the index: which frames make which clip ------------------------------------------------------------------------
    def load_data_list(self) -> list[dict]:
        """Infos with their sequence fields; those made by mmdet3d are completed from the tables."""
        infos, metainfo = load_info_file(self.ann_file)
        infos = ensure_sequence_fields(infos, metainfo, self.data_root, self.ann_file)
        for key, value in metainfo.items():
            self._metainfo.setdefault(key, value)
        return [self.parse_data_info(info) for info in infos]

    def full_init(self) -> None:
        """Loads the infos and links every frame to its scene."""
        if self._fully_initialized:
            return
        self.data_list = self.load_data_list()
        self.data_list = self.filter_data()
        if self._indices is not None:
            self.data_list = self._get_unserialized_subset(self._indices)
        self.scene_tokens = [info['scene_token'] for info in self.data_list]
        self.frame_indices = np.array([info['frame_index'] for info in self.data_list])
        self.scene_lengths = {info['scene_token']: info['num_frames'] for info in self.data_list}
        self._position = {key: i for i, key in enumerate(zip(self.scene_tokens, self.frame_indices.tolist()))}
        self.clip_ends = self._clip_ends()
        if self.serialize_data:
            self.data_bytes, self.data_address = self._serialize_data()
        self._fully_initialized = True

    def _clip_ends(self) -> np.ndarray:
        """Positions in the data list at which clips end."""
        if self.test_mode:
            return np.arange(len(self.data_list))
        span = (self.seq_len - 1) * self.frame_stride + 1
        short = {token: length for token, length in self.scene_lengths.items() if length < span}
        if short:
            token, length = min(short.items(), key=lambda item: item[1])
            raise ValueError(
                f'{self.ann_file}: a clip of seq_len={self.seq_len} with frame_stride={self.frame_stride} spans {span} '
                f'keyframes, but {len(short)} scene(s) are shorter (scene {token} has {length}): lower seq_len or '
                'frame_stride')
        last = np.array([self.scene_lengths[token] - 1 for token in self.scene_tokens])
        return np.flatnonzero(((self.frame_indices + 1) % self.stride == 0) | (self.frame_indices == last))

    def clip_positions(self, index: int) -> list[int | None]:
        """Positions of item `index`'s T frames in the data list, oldest first; None is padding."""
        end = int(self.clip_ends[index])
        frames = self.frame_indices[end] - np.arange(self.seq_len - 1, -1, -1) * self.frame_stride
        return [self._position.get((self.scene_tokens[end], int(frame))) for frame in frames]

    def __len__(self) -> int:
        if not self._fully_initialized:
            self.full_init()
        return len(self.clip_ends)

    def get_cat_ids(self, idx: int) -> set[int]:
        """Classes in the last frame of clip `idx`, for class-balanced sampling."""
        return super().get_cat_ids(int(self.clip_ends[idx]))

    # -- items --------------------------------------------------------------------------------------------------------
    def __getitem__(self, index: int) -> list[dict]:
        """The packed frames of clip `index`."""
        if not self._fully_initialized:
            self.full_init()
        for candidate in (*range(index, len(self)), *range(index)):  # the next clip, where all frames were dropped
            clip_seed = self._counter.item_seed(self.seed, candidate)
            with seeded(clip_seed):
                frames = [None if p is None else self._frame(p, clip_seed) for p in self.clip_positions(candidate)]
            if any(frame is not None for frame in frames):
                return self._fill(frames, candidate, clip_seed)
        raise DataError(f'{self.ann_file}: every frame of every clip was dropped; see the warnings above for the files')

    def _fill(self, frames: list[dict | None], index: int, clip_seed: int) -> list[dict]:
        """The frames of clip `index` with padding where there is none."""
        if any(frame is None for frame in frames):
            metainfo = self._describe(self.get_data_info(int(self.clip_ends[index])), clip_seed)
            padding = self._pad({**metainfo, 'is_scene_start': False})
            return [padding if frame is None else frame for frame in frames]
        return [frame for frame in frames if frame is not None]

    def _describe(self, info: dict, clip_seed: int) -> dict[str, Any]:
        """The metainfo of META_KEYS for one info."""
        return {
            'sample_idx': info['sample_idx'],
            'sample_token': info['token'],
            'scene_token': info['scene_token'],
            'frame_index': info['frame_index'],
            'is_scene_start': info['frame_index'] == 0,
            'is_scene_end': info['frame_index'] == info['num_frames'] - 1,
            'timestamp_s': float(info['lidar_points']['timestamp']),
            'global_from_lidar': np.asarray(info['global_from_lidar'], dtype=np.float64),
            'bev_aug': np.eye(4),
            'is_keyframe': True,
            'frame_valid': True,
            'clip_seed': clip_seed,
            'box_type_3d': self.box_type_3d,
            'box_mode_3d': self.box_mode_3d,
        }

    def _frame(self, position: int, clip_seed: int) -> dict | None:
        """One frame through the pipeline; None where it is dropped."""
        info = self.get_data_info(position)
        try:
            return self.pipeline({**info, **self._describe(info, clip_seed)})
        except BadFrameError as error:
            if self.on_bad_frame == 'error':
                raise
            self.num_dropped_frames += 1
            print_log(f'dropped frame {self.num_dropped_frames} of this worker: {error}', 'current', level=30)
            if not self.test_mode:
                return None
            # A test frame still owes a prediction: it keeps its place and its truth, and has no points.
            return self._pad(self._describe(info, clip_seed))

    def _pad(self, metainfo: dict[str, Any]) -> dict:
        features = next((t.use_dim for t in self.pipeline.transforms if hasattr(t, 'use_dim')), [0] * 5)
        box_dim = 9 if self.with_velocity else 7
        metainfo = {k: v for k, v in metainfo.items() if k != 'clip_seed'}
        return pack_padding(metainfo, len(features), box_dim)
