"""Settings stage: a preset name and options in, one frozen, checked description of a data set out (no frame)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

SCENE_KINDS: dict[str, str] = {
    'scene-0061': 'left_turn',
    'scene-0103': 'right_turn',
    'scene-0553': 'braking',
    'scene-0655': 'bends',
    'scene-0757': 'fast',
    'scene-0796': 'starting',
    'scene-0916': 'cruise',
    'scene-1077': 'right_turn',
    'scene-1094': 'braking',
    'scene-1100': 'left_turn',
}
SLOPED_SCENES: frozenset[str] = frozenset({'scene-0655', 'scene-0757', 'scene-1077', 'scene-1100'})
RIG_NAMES: tuple[str, ...] = ('nuscenes', 'other', 'front')
# The forecast world's scenes bear names of the devkit's train (from the 201st on, and of the first 200: its train_val) and val.
FORECAST_KINDS: dict[str, str] = {
    **{f'scene-{number:04d}': 'traffic' if number % 2 else 'junction' for number in range(347, 363)},
    **dict.fromkeys(('scene-0001', 'scene-0004'), 'junction'), 'scene-0002': 'traffic',
    **dict.fromkeys(('scene-0012', 'scene-0014', 'scene-0016'), 'junction'),
    **dict.fromkeys(('scene-0003', 'scene-0013', 'scene-0015'), 'traffic'),
}
NANO_SCENES: tuple[str, ...] = ('scene-0061', 'scene-0103', 'scene-0553', 'scene-0916')
SWEEPS_PER_KEYFRAME = 10
SWEEP_PERIOD_US = 50_000
DISTORTION_COEFFICIENTS: dict[str, tuple[float, ...]] = {
    'none': (),
    'radtan': (-0.12, 0.03, 0.0006, -0.0004, -0.002),
    'fisheye': (-0.03, 0.008, -0.004, 0.0006),
}


@dataclass(frozen=True)
class Settings:
    """Everything that decides the bytes of a data set.

    Attributes:
        preset: name of the preset that these settings came from.
        seed: world seed, 0 or more.
        scene_names: scenes, each a key of `SCENE_KINDS`, or of `FORECAST_KINDS` in the forecast world.
        keyframes: keyframes per scene (2 Hz).
        azimuth_steps: LiDAR columns per sweep.
        image_wh_px: camera image size; intrinsics are scaled from 1600x900.
        camera_sweeps: also write the camera frames between keyframes (12 Hz).
        distortion: 'none', 'radtan' (k1 k2 p1 p2 k3) or 'fisheye' (Kannala-Brandt, four coefficients).
        sweep_motion: the ego and the world move while a sweep is taken (points stay raw, as a spinning LiDAR gives).
        parked_density: how full the kerb lanes and pavements are, 0 to 1.
        camera_labels: also write `camera_labels/`: classes of all pixels and 2-D boxes of the cameras' keyframes.
        occlusion: streets of `OcclusionPopulator`, and an ego that stops and goes, instead of the usual ones.
        long_occlusion: of these, those in which things stay hidden for 2 to 6 s.
        rig: which cameras, a key of `rig.RIGS`; the world and what its LiDAR sees do not depend on it.
        forecast: traffic that brakes, yields and turns for reasons that can be seen, with the prediction challenge's split
            file and maps; tables are those of v1.0-trainval.
        lidar_sweeps: also write the LiDAR's sweeps between keyframes (20 Hz).
    """

    preset: str
    seed: int
    scene_names: tuple[str, ...]
    keyframes: int
    azimuth_steps: int
    image_wh_px: tuple[int, int]
    camera_sweeps: bool = False
    distortion: str = 'none'
    sweep_motion: bool = False
    parked_density: float = 0.8
    occlusion: bool = False
    long_occlusion: bool = False
    camera_labels: bool = False
    rig: str = 'nuscenes'
    forecast: bool = False
    lidar_sweeps: bool = True

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f'seed must be 0 or more, got {self.seed}')
        if self.keyframes < 2:
            raise ValueError(f'keyframes must be 2 or more, got {self.keyframes}')
        if self.azimuth_steps < 16:
            raise ValueError(f'azimuth_steps must be 16 or more, got {self.azimuth_steps}')
        if min(self.image_wh_px) < 16:
            raise ValueError(f'image_wh_px must be at least 16x16, got {self.image_wh_px}')
        if self.distortion not in DISTORTION_COEFFICIENTS:
            raise ValueError(f'unknown distortion {self.distortion!r}; choose from {list(DISTORTION_COEFFICIENTS)}')
        if self.rig not in RIG_NAMES:
            raise ValueError(f'unknown rig {self.rig!r}; choose from {list(RIG_NAMES)}')
        if self.forecast and (self.occlusion or self.long_occlusion):
            raise ValueError('forecast=True has streets of its own: leave occlusion and long_occlusion out')
        kinds = FORECAST_KINDS if self.forecast else SCENE_KINDS
        unknown = [name for name in self.scene_names if name not in kinds]
        if unknown or not self.scene_names:
            raise ValueError(f'unknown or no scenes {unknown}; choose from {list(kinds)}')
        if len(set(self.scene_names)) < len(self.scene_names):
            raise ValueError(f'every scene once, got {list(self.scene_names)}')

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last keyframe."""
        return (self.keyframes - 1) * 0.5

    def to_json(self) -> dict[str, Any]:
        """Plain dict for the marker file; equal dicts mean equal bytes."""
        values = asdict(self)
        values['scene_names'] = list(self.scene_names)
        values['image_wh_px'] = list(self.image_wh_px)
        for name, usual in _USUAL.items():
            if values[name] == usual:
                # Left out where it changes nothing, so that folders made before this field existed stay valid.
                del values[name]
        return values


_USUAL = dict(occlusion=False, long_occlusion=False, camera_labels=False, rig='nuscenes', forecast=False, lidar_sweeps=True)
_ALL = tuple(SCENE_KINDS)
_FORECAST = tuple(FORECAST_KINDS)
_FORECAST_NANO = ('scene-0348', 'scene-0001', 'scene-0003', 'scene-0012')
PRESETS: dict[str, Settings] = {
    'nano': Settings('nano', 0, NANO_SCENES, 5, 200, (400, 225)),
    'tiny': Settings('tiny', 0, _ALL, 10, 542, (400, 225)),
    'mini': Settings('mini', 0, _ALL, 20, 1084, (1600, 900)),
    'full': Settings('full', 0, _ALL, 40, 1086, (1600, 900)),
    'occlusion': Settings('occlusion', 0, _ALL, 40, 362, (160, 90), parked_density=0.7, occlusion=True),
    'occlusion_long': Settings(
        'occlusion_long', 0, _ALL, 40, 362, (160, 90), parked_density=0.7, occlusion=True, long_occlusion=True),
    'forecast': Settings('forecast', 0, _FORECAST, 40, 400, (400, 225), rig='front', forecast=True, lidar_sweeps=False),
    'forecast_nano': Settings(
        'forecast_nano', 0, _FORECAST_NANO, 20, 160, (160, 90), rig='front', forecast=True, lidar_sweeps=False),
}


def make_settings(preset: str, seed: int = 0, **changes: Any) -> Settings:
    """Take a preset and change some fields of it.

    Args:
        preset: a key of `PRESETS`.
        seed: world seed.
        **changes: fields of `Settings`; an unknown one is an error.

    Raises:
        ValueError: unknown preset or a bad value.
        TypeError: unknown field.
    """
    if preset not in PRESETS:
        raise ValueError(f'unknown preset {preset!r}; choose from {list(PRESETS)}')
    return replace(PRESETS[preset], seed=seed, **changes)
