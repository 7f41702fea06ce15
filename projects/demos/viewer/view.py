"""Demo, viewer. In: data, results, a detector, in any combination that names data. Out: one scene as a Rerun recording."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmdet3d.registry import DATASETS
from mmengine.config import Config

from projects.memfusion.data.transforms.loading import lidar_pose
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.launch import init_registry, prepare_config

from ..streaming import find_scene, load_detector
from .boxes import ViewedBoxes, boxes_of_info, boxes_of_results, boxes_of_set
from .detector import DetectorFrame, watch_scene
from .layout import layout
from .recording import SceneRecording, import_rerun
from .results import Results, config_beside, find_results, read_results
from .scene import ViewedScene, read_scene
from .sensors import ViewedCamera, cameras_of, points_of, sweeps_of


@dataclass(frozen=True)
class ViewOptions:
    """How a scene is shown.

    Attributes:
        sweeps: earlier LiDAR readings of each frame, at most.
        score_thr: predictions that score this or more.
        trust: read the checkpoint without protection.
    """

    sweeps: int = 4
    score_thr: float = 0.1
    trust: bool = False

    def __post_init__(self) -> None:
        if self.sweeps < 0:
            raise UserError(f'--sweeps must be 0 or more, got {self.sweeps}')


@dataclass(frozen=True)
class ViewSources:
    """What is shown; sort_sources makes it of paths.

    Attributes:
        data: root, info file or keyframe folder.
        results: by sample token; None without a result file.
        cfg: of a detector; None without one.
        checkpoint: its weights.
    """

    data: Path
    results: Results | None = None
    cfg: Config | None = None
    checkpoint: str | None = None


@dataclass
class ViewSummary:
    """What was written."""

    scene: str
    frames: int = 0
    boxes: int = 0
    missing: list[str] = field(default_factory=list)
    """Sentences about images that are not there."""
    without_results: int = 0
    """Frames that the results do not have."""


def sort_sources(paths: Sequence[Path], cfg: Config | None = None, checkpoint: str | None = None) -> ViewSources:
    """Which of the paths is data and which are results. What is not given is found out: data of results from the config that
    tools/test.py left beside them, data of a detector from its config.

    Raises:
        UserError: for a path that is not there, for two of a kind, for results whose data nobody names, for a config without
            a checkpoint or a checkpoint without a config.
    """
    if (cfg is None) != (checkpoint is None):
        raise UserError('--config and --checkpoint go together: one is the detector, the other its weights')
    absent = [path for path in paths if not path.exists()]
    if absent:
        raise UserError(f'{absent[0]} does not exist: give a data set root, an info file, a keyframe folder or results')
    data = [path for path in paths if _is_data(path)]
    results = [find_results(path) for path in paths if path not in data]
    for kind, given in (('results', results), ('data', data)):
        if len(given) > 1:
            raise UserError(f'{given[0]} and {given[1]} are both {kind}: give one of them')
    if data and cfg is not None:
        _point_at(cfg, data[0])
    beside = cfg
    if results and not data and cfg is None:
        path = config_beside(results[0])
        if path is None:
            raise UserError(f'{results[0]}: no config of the run lies beside it, so name the data too: tools/view.py DATA '
                            f'{results[0]}')
        beside = prepare_config(path)
    if not data and beside is None:
        raise UserError('nothing to show: give a data set root, an info file, a keyframe folder or results')
    where = data[0] if beside is None else _data_of(beside)
    return ViewSources(where, read_results(results[0]) if results else None, cfg, checkpoint)


def _is_data(path: Path) -> bool:
    if path.is_file():
        return path.suffix == '.pkl'
    return any(path.glob('*.pkl')) or any(path.glob('*/calibrated_sensor.json'))


def _data_of(cfg: Any) -> Path:
    dataset = cfg.test_dataloader.dataset
    return Path(dataset.get('data_root', '')) / dataset.ann_file


def _point_at(cfg: Config, data: Path) -> None:
    """The detector reads the data that is shown."""
    dataset = cfg.test_dataloader.dataset
    if data.is_file():
        dataset.ann_file, data = data.name, data.parent
    dataset.data_root = f'{data}/'


def view_scene(sources: ViewSources, out: Path, scene: str | None = None, options: ViewOptions | None = None) -> ViewSummary:
    """Writes one scene.

    Args:
        out: the .rrd file.
        scene: name or token; None is the first, of results the first that they have.

    Raises:
        UserError: naming what cannot be read, found or used.
    """
    import_rerun()
    options = options or ViewOptions()
    viewed = read_scene(sources.data, scene, () if sources.results is None else sources.results.keys())
    frames = _detector_frames(sources, viewed, options)
    first = coming = next(frames, None)
    names = dict.fromkeys(name for info in viewed.infos for name in info.get('images') or {})
    window = layout(list(names), [] if first is None else list(first.maps), first is not None and bool(first.counts))
    summary, missing = ViewSummary(viewed.name), dict[str, None]()
    recording = SceneRecording(out, lidar_pose(viewed.infos[0])[:3, 3], window)
    for number, info in enumerate(viewed.infos):
        did = coming if coming is not None and coming.token == info['token'] else None
        coming = coming if did is None else next(frames, None)
        cameras = _write_sensors(recording, number, info, viewed, options, missing)
        summary.frames += 1
        if sources.results is not None:
            summary.without_results += info['token'] not in sources.results
            predictions: ViewedBoxes | None = boxes_of_results(sources.results.get(info['token'], []), lidar_pose(info))
        else:
            predictions = None if did is None or did.boxes is None else boxes_of_set(did.boxes, did.class_names)
        if predictions is not None and predictions.scores is not None:
            predictions = predictions.keep(predictions.scores >= options.score_thr)
            recording.predictions(predictions)
            summary.boxes += len(predictions)
        if did is not None:
            _write_detector(recording, did, cameras)
    recording.close()
    summary.missing = list(missing)
    return summary


def _detector_frames(sources: ViewSources, viewed: ViewedScene, options: ViewOptions) -> Iterator[DetectorFrame]:
    """What the detector did in the scene's frames, one by one; nothing without a detector."""
    if sources.cfg is None or sources.checkpoint is None:
        return
    init_registry()
    model = load_detector(sources.cfg, sources.checkpoint, options.trust)
    dataset = DATASETS.build(sources.cfg.test_dataloader.dataset)
    _, positions = find_scene(dataset, viewed.infos[0]['scene_token'])
    yield from watch_scene(model, dataset, positions)


def _write_sensors(recording: SceneRecording, number: int, info: Mapping[str, Any], viewed: ViewedScene, options: ViewOptions,
                   missing: dict[str, None]) -> dict[str, ViewedCamera]:
    """Begins the frame and writes all but predictions; images that are not there are added to `missing`."""
    time_s = float(info['lidar_points'].get('timestamp', info['timestamp']))
    recording.begin(int(info.get('frame_index', number)), time_s, lidar_pose(info))
    recording.points(points_of(info, viewed.root, viewed.lidar), sweeps_of(info, viewed.root, viewed.lidar, options.sweeps))
    cameras, absent = cameras_of(info, viewed.root)
    missing |= dict.fromkeys(absent)
    recording.cameras(cameras, time_s)
    truth = boxes_of_info(info, viewed.categories)
    if truth is not None:
        recording.truth(truth)
    return cameras


def _write_detector(recording: SceneRecording, did: DetectorFrame, cameras: Mapping[str, ViewedCamera]) -> None:
    """What it shows besides boxes."""
    for name, values in did.maps.items():
        recording.map(name, values, did.range_m)
    recording.numbers(did.counts)
    if did.futures is not None:
        recording.futures(*did.futures)
    if did.queries is not None:
        recording.queries(did.queries, cameras)
