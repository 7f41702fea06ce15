"""Data set of clips. In: nuScenes infos. Out: a list of T packed frames, oldest first; the last one is the item's own frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet3d.datasets.transforms import Pack3DDetInputs
from mmdet3d.registry import DATASETS
from mmengine.logging import print_log

from .clip_frames import Clip
from .clip_index import ClipIndex, keyframe_index, reading_index
from .errors import BadFrameError, DataError
from .frame_checks import check_keyframes
from .pipeline_checks import check_alignment, check_cameras, check_points, check_same_for_all_frames, check_sweep_loader
from .seeding import SeededNuScenesDataset, is_seeded, seeded
from .transforms.packing import ALIGNED_KEY, pack_padding

_CHOICES = dict(frame_rate=('keyframe', 'sweep'), align=('none', 'loader'), on_bad_frame=('error', 'drop'))


@DATASETS.register_module()
class NuScenesSequenceDataset(SeededNuScenesDataset):
    """nuScenes frames as clips that never cross a scene and end at a keyframe.

    A clip reaches `seq_len - 1` frames back, `frame_stride` apart. What would lie before the scene's first frame is padding
    with `frame_valid=False`. In testing every keyframe ends one item, in data-set order; at sweep rate with seq_len=1
    (streaming) the item holds the frames since the keyframe before, so that a stream sees each once.

    Args:
        data_root, ann_file, pipeline: as in NuScenesDataset.
        seq_len: frames of a clip, T.
        stride: keyframes between the ends of neighbouring clips (training only); the last frame of a scene always ends one.
        frame_stride: frames (keyframes, or LiDAR readings at sweep rate) between neighbouring frames of a clip.
        frame_rate: 'keyframe' (2 Hz), or 'sweep': frames are all LiDAR readings (20 Hz); only keyframes have boxes.
        num_sweeps: accumulated sweeps of a frame, its own included; goes before `sweeps_num` of the pipeline's
            LoadLidarSweeps. None leaves that as it is.
        align: 'none', or 'loader': AlignToClipEnd moves all frames into the last one's LiDAR coordinates.
        seed, keep_seen_s: as in SeededNuScenesDataset.
        on_bad_frame: 'error', or 'drop': a frame whose files are broken becomes padding and is counted.
        kwargs: NuScenesDataset's own arguments. Images need modality=dict(use_camera=True) and the cameras' folders in
            data_prefix (CAM_FRONT='samples/CAM_FRONT', ...). With use_lidar=False frames have no points: the pipeline loads
            none and 'points' is not among the keys of PackClipFrame.

    Raises:
        ValueError: naming the key, for a bad value, a clip longer than a scene, unknown classes, a pipeline that cannot make
            clips, or filter_empty_gt=True (it would swap a frame without boxes for a random other one).
        DataError: for infos that are not scenes in time order with rigid poses.
    """

    _needs_sequence_fields = True

    def __init__(
        self,
        data_root: str,
        ann_file: str,
        pipeline: Sequence[Any] = (),
        seq_len: int = 1,
        stride: int = 1,
        frame_stride: int = 1,
        frame_rate: str = 'keyframe',
        num_sweeps: int | None = None,
        align: str = 'none',
        seed: int = 0,
        keep_seen_s: float = 0.0,
        on_bad_frame: str = 'error',
        **kwargs: Any,
    ) -> None:
        for name, count in dict(seq_len=seq_len, stride=stride, frame_stride=frame_stride, num_sweeps=num_sweeps).items():
            if count is not None and count < 1:
                raise ValueError(f'{name} must be at least 1, got {count}')
        for name, value in dict(frame_rate=frame_rate, align=align, on_bad_frame=on_bad_frame).items():
            if value not in _CHOICES[name]:
                raise ValueError(f"{name} must be {' or '.join(map(repr, _CHOICES[name]))}, got {value!r}")
        if kwargs.setdefault('filter_empty_gt', False):
            raise ValueError('filter_empty_gt=True cannot go with clips: it swaps a frame without boxes for a random '
                             'other one. Leave it out or set it to False')
        test_mode = kwargs.get('test_mode', False)
        self.seq_len, self.stride, self.frame_stride = seq_len, stride, frame_stride
        self.at_sweep_rate, self.num_sweeps, self.aligned = frame_rate == 'sweep', num_sweeps, align == 'loader'
        self.streams_sweeps = test_mode and self.at_sweep_rate and seq_len == 1
        check_sweep_loader(pipeline, num_sweeps, self.at_sweep_rate)
        if seq_len > 1 or self.streams_sweeps:
            check_same_for_all_frames(pipeline)
        modality = kwargs.get('modality', dict(use_lidar=True)) or {}  # mmdet3d's default for nuScenes
        check_points(pipeline, modality.get('use_lidar', False), self.at_sweep_rate)
        self.has_cameras = check_cameras(pipeline, modality.get('use_camera', False))
        if self.aligned:
            check_alignment(pipeline)
            if test_mode and seq_len == 1:
                raise ValueError("align='loader' moves frames into a clip's last one, and streaming (test_mode with seq_len=1) "
                                 "has no clips: set seq_len, or align='none'")
        self.on_bad_frame, self.num_dropped_frames = on_bad_frame, 0
        self._fully_initialized = False
        super().__init__(data_root=data_root, ann_file=ann_file, pipeline=list(pipeline), seed=seed, keep_seen_s=keep_seen_s,
                         **kwargs)

    # -- the index: which frames make which clip ------------------------------------------------------------------------
    def full_init(self) -> None:
        """Loads and checks the infos and links every frame to its scene."""
        if self._fully_initialized:
            return
        self.data_list = self.load_data_list()
        self.data_list = self.filter_data()
        if self._indices is not None:
            self.data_list = self._get_unserialized_subset(self._indices)
        keyframes = check_keyframes(self.data_list, self.ann_file)
        self.scene_tokens = [info['scene_token'] for info in self.data_list]
        self.frame_indices = keyframes.frame
        self._last_frames = keyframes.num_frames[keyframes.scene] - 1
        longest = max(len(info.get('lidar_sweeps', ())) for info in self.data_list)
        self.index: ClipIndex
        if self.at_sweep_rate:
            self.index = reading_index(self.data_list, keyframes, self.frame_stride, self.ann_file)
        else:
            self.index = keyframe_index(keyframes)
            self._check_num_sweeps(longest)
        self._num_listed = max(longest, (self.num_sweeps or 1) - 1)
        self._stream_length = self.index.most_since_keyframe(self.frame_stride)
        self.clip_ends = self._clip_ends()
        if self.serialize_data:
            self.data_bytes, self.data_address = self._serialize_data()
        self._fully_initialized = True

    def _check_num_sweeps(self, longest: int) -> None:
        if self.num_sweeps is not None and self.num_sweeps - 1 > longest and (self.frame_indices > 0).any():
            raise DataError(f'{self.ann_file} lists at most {longest} earlier sweeps of a keyframe, num_sweeps='
                            f'{self.num_sweeps} takes {self.num_sweeps - 1}: lower it, or make the infos with '
                            f'tools/create_data.py --max-sweeps {self.num_sweeps - 1}')

    def _clip_ends(self) -> np.ndarray:
        """Positions in the data list at which clips end."""
        if self.test_mode:
            return np.arange(len(self.data_list))
        span = (self.seq_len - 1) * self.frame_stride + 1
        _, firsts = np.unique(self.scene_tokens, return_index=True)
        short = {self.index.scene_length(first): self.scene_tokens[first] for first in firsts.tolist()
                 if self.index.scene_length(first) < span}
        if short:
            what = 'LiDAR readings' if self.at_sweep_rate else 'keyframes'
            raise ValueError(
                f'{self.ann_file}: a clip of seq_len={self.seq_len} with frame_stride={self.frame_stride} spans {span} '
                f'{what}, but some scenes are shorter (scene {short[min(short)]} has {min(short)}): lower seq_len or '
                'frame_stride')
        return np.flatnonzero(((self.frame_indices + 1) % self.stride == 0) | (self.frame_indices == self._last_frames))

    def clip_rows(self, index: int) -> list[int]:
        """Rows of the index of item `index`'s frames, oldest first; -1 is padding."""
        end = int(self.clip_ends[index])
        if self.streams_sweeps:
            return self.index.since_keyframe(end, self._stream_length, self.frame_stride)
        return self.index.history(end, self.seq_len, self.frame_stride)

    def __len__(self) -> int:
        if not self._fully_initialized:
            self.full_init()
        return len(self.clip_ends)

    def get_cat_ids(self, idx: int) -> set[int]:
        """Classes in the last frame of clip `idx`, for class-balanced sampling."""
        return super().get_cat_ids(int(self.clip_ends[idx]))

    # -- items --------------------------------------------------------------------------------------------------------
    def __getitem__(self, index: int) -> list[dict]:  # type: ignore[override]
        """The packed frames of clip `index`."""
        if not self._fully_initialized:
            self.full_init()
        for candidate in (*range(index, len(self)), *range(index)):  # the next clip, where all frames were dropped
            # Inside a wrapper (class-balanced sampling), its index has seeded numpy: repeated clips differ.
            seed = int(np.random.randint(2**31)) if is_seeded() else self._counter.item_seed(self.seed, candidate)
            num_listed = self._num_listed if self.at_sweep_rate else None
            clip = Clip(self.index, self.clip_rows(candidate), seed, self.get_data_info, num_listed)
            with seeded(seed):
                frames = [None if row < 0 else self._frame(clip, row) for row in clip.rows]
            if any(frame is not None for frame in frames):
                return self._fill(frames, clip)
        raise DataError(f'{self.ann_file}: every frame of every clip was dropped; see the warnings above for the files')

    def _frame(self, clip: Clip, row: int) -> dict | None:
        """One frame through the pipeline; None where it is dropped."""
        info = clip.info(row)
        results = {**info, **self._metainfo_of(clip, row, info), 'clip_seed': clip.seed, 'point_files': clip.files}
        if not results['is_keyframe'] and (self.load_eval_anns or not self.test_mode):
            results['eval_ann_info' if self.test_mode else 'ann_info'] = self.parse_ann_info(info)  # no boxes
        if self.num_sweeps is not None:
            results['num_sweeps'] = self.num_sweeps
        if self.aligned:
            results['clip_end_from_lidar'] = clip.end_from(info)
        try:
            return self.pipeline(results)
        except BadFrameError as error:
            if self.on_bad_frame == 'error':
                raise
            self.num_dropped_frames += 1
            print_log(f'dropped frame {self.num_dropped_frames} of this worker: {error}', 'current', level=30)
            # A test frame still owes a prediction: it keeps its place and its name, and has no points.
            return self._pad(clip, row, {}) if self.test_mode else None

    def _fill(self, frames: list[dict | None], clip: Clip) -> list[dict]:
        """The clip's frames with padding where there is none."""
        padding = self._pad(clip, clip.rows[-1], {'is_scene_start': False}) if None in frames else {}
        return [padding if frame is None else frame for frame in frames]

    def _pad(self, clip: Clip, row: int, changes: dict[str, Any]) -> dict:
        info = clip.info(row)
        metainfo = {**self._metainfo_of(clip, row, info), **changes}
        if self.aligned:
            metainfo['bev_aug'] = clip.end_from(info)
        transforms = self.pipeline.transforms
        has_points = all('points' in transform.keys for transform in transforms if isinstance(transform, Pack3DDetInputs))
        features = next((transform.use_dim for transform in transforms if hasattr(transform, 'use_dim')), [0] * 5)
        return pack_padding(metainfo, len(features) if has_points else None, 9 if self.with_velocity else 7, self.has_cameras)

    def _metainfo_of(self, clip: Clip, row: int, info: dict) -> dict[str, Any]:
        return {**clip.metainfo(row, info), ALIGNED_KEY: self.aligned, 'box_type_3d': self.box_type_3d,
                'box_mode_3d': self.box_mode_3d}
