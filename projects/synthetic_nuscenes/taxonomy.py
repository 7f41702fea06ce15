"""Vocabulary stage: nuScenes' categories, attributes and visibility levels, and the ten kinds of agent built here."""

from __future__ import annotations

from dataclasses import dataclass

CATEGORIES: tuple[str, ...] = (
    'human.pedestrian.adult',
    'human.pedestrian.child',
    'human.pedestrian.wheelchair',
    'human.pedestrian.stroller',
    'human.pedestrian.personal_mobility',
    'human.pedestrian.police_officer',
    'human.pedestrian.construction_worker',
    'animal',
    'vehicle.car',
    'vehicle.motorcycle',
    'vehicle.bicycle',
    'vehicle.bus.bendy',
    'vehicle.bus.rigid',
    'vehicle.truck',
    'vehicle.construction',
    'vehicle.emergency.ambulance',
    'vehicle.emergency.police',
    'vehicle.trailer',
    'movable_object.barrier',
    'movable_object.trafficcone',
    'movable_object.pushable_pullable',
    'movable_object.debris',
    'static_object.bicycle_rack',
)
ATTRIBUTES: tuple[str, ...] = (
    'vehicle.moving',
    'vehicle.stopped',
    'vehicle.parked',
    'cycle.with_rider',
    'cycle.without_rider',
    'pedestrian.sitting_lying_down',
    'pedestrian.standing',
    'pedestrian.moving',
)
VISIBILITY_LEVELS: tuple[tuple[str, str], ...] = (
    ('1', 'v0-40'),
    ('2', 'v40-60'),
    ('3', 'v60-80'),
    ('4', 'v80-100'),
)
TABLES: tuple[str, ...] = (
    'attribute',
    'calibrated_sensor',
    'category',
    'ego_pose',
    'instance',
    'log',
    'map',
    'sample',
    'sample_annotation',
    'sample_data',
    'scene',
    'sensor',
    'visibility',
)


@dataclass(frozen=True)
class Part:
    """One box of an agent's body, in fractions of the annotated box: x, y in [-0.5, 0.5], z in [0, 1] (up)."""

    x: tuple[float, float]
    y: tuple[float, float]
    z: tuple[float, float]
    texture: str


@dataclass(frozen=True)
class Kind:
    """How one class of agent looks to each sensor.

    Attributes:
        category: nuScenes category name.
        size_lwh_m: mean (length, width, height).
        size_std_lwh_m: spread; truncated at two sigma.
        reflectance: mean and spread of the LiDAR intensity at normal incidence, of 255.
        body: the shape, a key of `BODIES`.
        colours_bgr: paints to choose from; only cameras see them.
    """

    category: str
    size_lwh_m: tuple[float, float, float]
    size_std_lwh_m: tuple[float, float, float]
    reflectance: tuple[float, float]
    body: str
    colours_bgr: tuple[tuple[int, int, int], ...]
    texture: str


BODIES: dict[str, tuple[Part, ...]] = {
    'car': (
        Part((-0.49, 0.49), (-0.49, 0.49), (0.02, 0.56), 'side'),
        Part((-0.36, 0.2), (-0.43, 0.43), (0.56, 0.98), 'glass'),
    ),
    'lorry': (
        Part((0.26, 0.49), (-0.47, 0.47), (0.02, 0.78), 'side'),
        Part((-0.49, 0.24), (-0.49, 0.49), (0.02, 0.98), 'side'),
    ),
    'bus': (Part((-0.49, 0.49), (-0.49, 0.49), (0.02, 0.98), 'side'),),
    'trailer': (
        Part((-0.49, 0.49), (-0.49, 0.49), (0.3, 0.98), 'side'),
        Part((-0.45, -0.15), (-0.45, 0.45), (0.02, 0.3), 'dark'),
        Part((0.3, 0.34), (-0.3, 0.3), (0.02, 0.3), 'dark'),
    ),
    'cycle': (
        Part((-0.49, 0.49), (-0.14, 0.14), (0.02, 0.6), 'side'),
        Part((-0.14, 0.16), (-0.45, 0.45), (0.55, 0.98), 'side'),
    ),
    'pedestrian': (
        Part((-0.24, 0.24), (-0.36, 0.36), (0.02, 0.84), 'side'),
        Part((-0.14, 0.14), (-0.16, 0.16), (0.84, 0.98), 'skin'),
    ),
    'cone': (
        Part((-0.48, 0.48), (-0.48, 0.48), (0.02, 0.12), 'dark'),
        Part((-0.3, 0.3), (-0.3, 0.3), (0.12, 0.55), 'side'),
        Part((-0.16, 0.16), (-0.16, 0.16), (0.55, 0.98), 'side'),
    ),
    'barrier': (
        Part((-0.49, 0.49), (-0.49, 0.49), (0.02, 0.4), 'side'),
        Part((-0.22, 0.22), (-0.49, 0.49), (0.4, 0.98), 'side'),
    ),
}

_LORRY = dict(
    size_lwh_m=(6.8, 2.5, 2.9), size_std_lwh_m=(0.3, 0.08, 0.12), reflectance=(30.0, 8.0), body='lorry'
)
_CYCLE = dict(
    size_lwh_m=(1.9, 0.75, 1.45), size_std_lwh_m=(0.08, 0.04, 0.06), reflectance=(24.0, 6.0), body='cycle'
)
KINDS: dict[str, Kind] = {
    'car': Kind(
        'vehicle.car', (4.6, 1.95, 1.7), (0.2, 0.06, 0.08), (32.0, 10.0), 'car',
        ((200, 200, 200), (60, 60, 66), (150, 60, 40), (50, 40, 160), (120, 125, 120)), 'car',
    ),
    'truck': Kind('vehicle.truck', colours_bgr=((190, 90, 30),), texture='panels', **_LORRY),  # type: ignore[arg-type]
    'construction_vehicle': Kind(
        'vehicle.construction', colours_bgr=((20, 190, 240),), texture='hazard', **_LORRY  # type: ignore[arg-type]
    ),
    'bus': Kind(
        'vehicle.bus.rigid', (11.0, 2.95, 3.3), (0.4, 0.06, 0.1), (14.0, 4.0), 'bus',
        ((70, 150, 70), (60, 60, 190)), 'windows',
    ),
    'trailer': Kind(
        'vehicle.trailer', (12.2, 2.9, 3.95), (0.4, 0.06, 0.1), (48.0, 8.0), 'trailer',
        ((225, 225, 225), (150, 150, 170)), 'panels',
    ),
    'bicycle': Kind(
        'vehicle.bicycle', colours_bgr=((60, 200, 60),), texture='plain', **_CYCLE  # type: ignore[arg-type]
    ),
    'motorcycle': Kind(
        'vehicle.motorcycle', colours_bgr=((40, 30, 210),), texture='hazard', **_CYCLE  # type: ignore[arg-type]
    ),
    'pedestrian': Kind(
        'human.pedestrian.adult', (0.72, 0.68, 1.76), (0.04, 0.04, 0.08), (20.0, 5.0), 'pedestrian',
        ((120, 60, 60), (60, 60, 120), (90, 140, 180), (40, 40, 40)), 'clothes',
    ),
    'traffic_cone': Kind(
        'movable_object.trafficcone', (0.42, 0.42, 1.0), (0.02, 0.02, 0.05), (60.0, 10.0), 'cone',
        ((20, 90, 245),), 'bands',
    ),
    'barrier': Kind(
        'movable_object.barrier', (0.5, 2.5, 1.0), (0.02, 0.08, 0.04), (36.0, 6.0), 'barrier',
        ((60, 70, 200), (225, 225, 225)), 'plain',
    ),
}
LOOKALIKE_PAIRS: tuple[tuple[str, str], ...] = (('truck', 'construction_vehicle'), ('bicycle', 'motorcycle'))
VEHICLES: frozenset[str] = frozenset({'car', 'truck', 'construction_vehicle', 'bus', 'trailer'})
CYCLES: frozenset[str] = frozenset({'bicycle', 'motorcycle'})
