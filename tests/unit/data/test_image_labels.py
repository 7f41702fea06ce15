"""Image labels: read, moved to network pixels, made from 3-D boxes and from lidarseg; by hand and against slow oracles."""

import json
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from shapely.geometry import MultiPoint, box

from projects.memfusion.data.errors import BadFrameError, DataError
from projects.memfusion.data.transforms.image_labels import LoadImageLabels, labels_to_network
from projects.memfusion.data.transforms.projected_labels import LIDARSEG_CLASSES, ProjectImageBoxes, ProjectLidarsegLabels
from projects.memfusion.structures import Calibration
from projects.memfusion.structures.image_labels import IGNORED, ImageLabels, semantic_classes
from projects.synthetic_nuscenes.generate import generate_dataset
from projects.synthetic_nuscenes.settings import make_settings

CLASSES = ('car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle', 'pedestrian',
           'traffic_cone')
# LiDAR x right, y forward, z up (nuScenes); camera x right, y down, z forward, at the same place.
CAM_FROM_LIDAR = np.array([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
FRONT = dict(cam2img=[[100.0, 0, 49.5], [0, 100, 39.5], [0, 0, 1]], lidar2cam=CAM_FROM_LIDAR.tolist(), height=80, width=100)
HAND_BOXES = [dict(box_px=[-0.5, 9.5, 19.5, 29.5], depth_m=7.0), dict(box_px=[60.5, 60.5, 70.5, 79.5], depth_m=-1.0)]


def rig(**cameras):
    return Calibration.from_info(cameras or dict(CAM=FRONT))


def write_labels(root, names=('sky', 'bus', 'tram', 'car'), lens='pinhole', kinds=('car', 'tram'), size=(80, 100)):
    """Files of one image of CAM; returns its path and its raw ids."""
    folder = root / 'camera_labels' / 'CAM'
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / 'classes.json').write_text(json.dumps(dict(classes=names, ignored_id=255)))
    boxes = [{'class': kind, **rest} for kind, rest in zip(kinds, HAND_BOXES)]
    (folder / 'a.json').write_text(json.dumps(dict(lens=lens, boxes=boxes)))
    ids = np.random.default_rng(0).choice([0, 1, 2, 3, 255], size).astype(np.uint8)
    cv2.imwrite(str(folder / 'a.png'), ids)
    return root / 'samples' / 'CAM' / 'a.jpg', ids


def loaded(image, classes=('bus', 'car'), calibration=None, **arguments):
    results = dict(calibration=calibration or rig(), images=dict(CAM=dict(img_path=str(image))))
    return LoadImageLabels(classes, **arguments).transform(results)['img_labels']


def test_classes_go_by_name_and_others_are_ignored(tmp_path):
    image, ids = write_labels(tmp_path)
    (labels,) = loaded(image)
    assert labels.boxes_px.tolist() == [HAND_BOXES[0]['box_px']] and labels.labels.tolist() == [1]
    assert labels.depth_m.tolist() == [7.0]
    # ours: bus 0, car 1, ground 2, static 3, sky 4; there is no tram
    expected = np.select([ids == 0, ids == 1, ids == 3], [4, 0, 1], IGNORED)
    np.testing.assert_array_equal(labels.sem_seg.numpy(), expected)
    assert semantic_classes(('bus', 'car')) == ('bus', 'car', 'ground', 'static', 'sky')
    elsewhere = tmp_path / 'other' / 'samples' / 'CAM' / 'a.jpg'
    assert torch.equal(loaded(elsewhere, folder=str(tmp_path / 'camera_labels'))[0].sem_seg, labels.sem_seg)


def test_a_missing_camera_has_no_labels(tmp_path):
    image, _ = write_labels(tmp_path)
    calibration = Calibration.from_info(dict(CAM=FRONT), cam_names=('GONE', 'CAM'))
    assert loaded(image, calibration=calibration)[0] is None


def test_files_that_cannot_be_used_are_named(tmp_path):
    image, _ = write_labels(tmp_path)
    with pytest.raises(BadFrameError, match=r'CAM/b\.json does not exist; .*--camera-labels'):
        loaded(image.with_name('b.jpg'))
    with pytest.raises(DataError, match=r"classes\.json has no class 'tank'"):
        loaded(image, classes=('tank',))
    with pytest.raises(DataError, match='LoadImageLabels needs the calibration: put LoadMultiViewImages before'):
        LoadImageLabels(('car',)).transform({})
    write_labels(tmp_path, size=(80, 99))
    with pytest.raises(BadFrameError, match=r'a\.png is \(80, 99\) uint8, its image is \(80, 100\)'):
        loaded(image)
    (tmp_path / 'camera_labels/CAM/a.png').unlink()
    with pytest.raises(BadFrameError, match=r'a\.png is missing'):
        loaded(image)
    (tmp_path / 'camera_labels/CAM/a.json').write_text('{')
    with pytest.raises(BadFrameError, match=r'a\.json is damaged'):
        loaded(image)
    write_labels(tmp_path, lens='fisheye')
    with pytest.raises(BadFrameError, match=r'a\.json labels a fisheye image, but CAM is pinhole by now'):
        loaded(image)


def aug(scale=(1.0, 1.0), angle_deg=0.0, shift=(0.0, 0.0), hw=(80, 100), calibration=None):
    """The one-camera rig with an image augmentation: scale by the pixel-centre rule, rotate about pixel 0, shift."""
    angle = np.radians(angle_deg)
    matrix = np.eye(4)
    matrix[:2, :2] = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag(scale)
    matrix[:2, 2] = np.array(scale) / 2 - 0.5 + np.array(shift)
    return replace(calibration or rig(), img_aug=torch.tensor(matrix, dtype=torch.float32)[None, None],
                   img_hw=torch.tensor([[hw]]))


def hand_labels(boxes, sem_seg=None):
    count = torch.arange(len(boxes))
    return ImageLabels(torch.tensor(boxes, dtype=torch.float32), count, 1.0 + count, sem_seg)


def test_resize_and_crop_by_hand():
    """Half the size, then the crop begins at (5, 0): a box from -0.5 to 19.5 goes to -0.5 .. 9.5, then to -5.5 .. 4.5."""
    calibration = aug(scale=(0.5, 0.5), shift=(-5.0, 0.0), hw=(30, 40))
    boxes = [[-0.5, 9.5, 19.5, 29.5], [-0.5, 0.0, 9.0, 20.0], [30.0, 30.0, 33.0, 50.0], [60.0, 58.0, 99.5, 79.5]]
    (moved,) = labels_to_network([hand_labels(boxes)], calibration)
    # the second is cut away; the third is 1.5 px wide, less than 2; the fourth is cut to 24.75..39.5, 28.75..29.5
    assert moved.labels.tolist() == [0] and moved.depth_m.tolist() == [1.0] and moved.sem_seg is None
    np.testing.assert_allclose(moved.boxes_px, [[-0.5, 4.5, 4.5, 14.5]], atol=1e-5)
    (moved,) = labels_to_network([hand_labels(boxes)], calibration, min_size_px=0.5)
    assert moved.labels.tolist() == [0, 2, 3]
    np.testing.assert_allclose(moved.boxes_px[2], [24.75, 28.75, 39.5, 29.5], atol=1e-5)


def test_rotated_boxes_hold_the_moved_corners():
    calibration = aug(angle_deg=90.0, shift=(80.0, -20.0), hw=(80, 80))  # a quarter turn: (u, v) -> (80 - v, u - 20)
    (moved,) = labels_to_network([hand_labels([[40.0, 30.0, 50.0, 34.0]])], calibration)
    np.testing.assert_allclose(moved.boxes_px, [[46.0, 20.0, 50.0, 30.0]], atol=1e-4)


@pytest.mark.parametrize('calibration', [
    aug(scale=(0.43, 0.61), angle_deg=5.4, shift=(3.3, -4.7), hw=(50, 47)),
    aug(scale=(1.7, 1.3), shift=(-31.2, 9.9), hw=(90, 60)),
])
def test_pixels_are_those_of_the_nearest_raw_pixel(calibration):
    ids = np.random.default_rng(1).integers(0, 13, (80, 100)).astype(np.uint8)
    (moved,) = labels_to_network([hand_labels([[0.0, 0.0, 9.0, 9.0]], torch.from_numpy(ids))], calibration)
    inverse = np.linalg.inv(calibration.img_aug[0, 0, :3, :3].double().numpy())
    height, width = calibration.img_hw[0, 0].tolist()
    wrong = outside = 0
    for v in range(height):
        for u in range(width):
            x, y, _ = inverse @ [u, v, 1]
            inside = -0.5 < x < 99.5 and -0.5 < y < 79.5
            expected = ids[int(np.floor(y + 0.5)), int(np.floor(x + 0.5))] if inside else IGNORED
            tie = min(abs(value - np.floor(value) - 0.5) for value in (x, y)) < 1e-3
            wrong += not tie and moved.sem_seg[v, u] != expected
            outside += not inside
    assert wrong == 0 and outside > 50 and moved.sem_seg.shape == (height, width)


def test_flip_mirrors_pixels_and_boxes():
    matrix = torch.eye(4)
    matrix[0, 0], matrix[0, 2] = -1.0, 99.0
    ids = torch.randint(0, 13, (80, 100), dtype=torch.uint8)
    (moved,) = labels_to_network([hand_labels([[9.5, 4.5, 19.5, 24.5]], ids)], replace(rig(), img_aug=matrix[None, None]))
    assert torch.equal(moved.sem_seg, ids.flip(1)) and moved.boxes_px.tolist() == [[79.5, 4.5, 89.5, 24.5]]


def test_missing_cameras_are_empty_and_ignored():
    calibration = Calibration.from_info(dict(A=FRONT, B=FRONT, C=FRONT))
    calibration = replace(calibration, cam_valid=torch.tensor([[True, True, False]]))
    whole = hand_labels([[0.0, 0.0, 9.0, 9.0]], torch.zeros(80, 100, dtype=torch.uint8))
    kept, absent, masked = labels_to_network([whole, None, whole], calibration)
    assert len(kept.labels) == 1
    for one in (absent, masked):
        assert len(one.labels) == 0 and one.sem_seg.shape == (80, 100) and (one.sem_seg == IGNORED).all()
    assert labels_to_network([replace(whole, sem_seg=None), None, None], calibration)[1].sem_seg is None


def test_labels_of_another_lens_or_rig_are_refused():
    labels = replace(hand_labels([[0.0, 0.0, 9.0, 9.0]]), lens_model=2)
    with pytest.raises(ValueError, match='camera CAM: the labels are of a fisheye image, the image is pinhole by now'):
        labels_to_network([labels], rig())
    with pytest.raises(ValueError, match=r"2 image labels for the cameras \['CAM'\]"):
        labels_to_network([None, None], rig())


# 3-D boxes to images


def project_boxes(boxes, labels=None, calibration=None, **more):
    tensor = LiDARInstance3DBoxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 7), origin=(0.5, 0.5, 0.5))
    results = dict(calibration=calibration or rig(), gt_bboxes_3d=tensor,
                   gt_labels_3d=np.arange(len(boxes)) if labels is None else np.array(labels), **more)
    return ProjectImageBoxes().transform(results)['img_labels']


def test_projected_box_by_hand():
    """2 m cubes: 10 m ahead the near face spans 100 * 1 / 9 px; one behind the camera, and one of no class, are left out."""
    (labels,) = project_boxes([[0, 10, 0, 2, 2, 2, 0], [0, -10, 0, 2, 2, 2, 0], [0, 20, 0, 2, 2, 2, 0]], [3, 4, -1])
    half = 100 / 9
    np.testing.assert_allclose(labels.boxes_px, [[49.5 - half, 39.5 - half, 49.5 + half, 39.5 + half]], atol=1e-4)
    assert labels.labels.tolist() == [3] and labels.depth_m.tolist() == pytest.approx([10.0]) and labels.sem_seg is None


def test_frames_without_boxes_have_none_in_their_images():
    for boxes, classes in (([], []), ([[0, 10, 0, 2, 2, 2, 0]], [-1])):
        (labels,) = project_boxes(boxes, classes)
        assert labels.boxes_px.shape == (0, 4) and labels.labels.shape == labels.depth_m.shape == (0,)


def test_boxes_through_the_camera_plane_are_cut_there():
    """A wall on the left, 1 to 1.5 m beside, from 5 m behind to 10 m ahead: it ends at u = 49.5 - 100 * 1 / 10.

    It comes in at the image's left edge, u = -0.5, where it is 2 m away: its height of 1 m is 50 px there.
    """
    (labels,) = project_boxes([[-1.25, 2.5, 0, 0.5, 15, 1, 0]])
    np.testing.assert_allclose(labels.boxes_px, [[-0.5, 14.5, 39.5, 64.5]], atol=1e-4)


def oracle_box(center, size, yaw):
    """Hull of the box's part in front of the camera, cut to the image, by shapely; None where nothing is seen."""
    signs = np.array([[(i >> axis) & 1 for axis in range(3)] for i in range(8)]) - 0.5
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    corners = (signs * size) @ turn.T + center
    cam = corners @ CAM_FROM_LIDAR[:3, :3].T
    points = [p for p in cam if p[2] > 0.11]
    for i in range(8):
        for axis in range(3):
            a, b = cam[i], cam[i ^ (1 << axis)]
            if (a[2] > 0.11) != (b[2] > 0.11):
                points.append(a + (b - a) * (0.11 - a[2]) / (b[2] - a[2]))
    if not points:
        return None
    pixels = [(100 * x / z + 49.5, 100 * y / z + 39.5) for x, y, z in points]
    part = MultiPoint(pixels).convex_hull.intersection(box(-0.5, -0.5, 99.5, 79.5))
    return None if part.area <= 0 else part.bounds


def random_boxes(count=300):
    rng = np.random.default_rng(5)
    center, size = rng.uniform([-8, -6, -2], [8, 25, 2], (count, 3)), rng.uniform([0.3, 0.3, 0.3], [6, 3, 3], (count, 3))
    return np.concatenate([center, size, rng.uniform(-3, 3, (count, 1))], axis=1)


def test_projected_boxes_against_a_slow_oracle():
    boxes = random_boxes()
    (labels,) = project_boxes(boxes)
    expected = {row: bounds for row, (*values,) in enumerate(boxes)
                if (bounds := oracle_box(np.array(values[:3]), np.array(values[3:6]), values[6])) is not None}
    assert labels.labels.tolist() == list(expected) and 80 < len(expected) < 290
    np.testing.assert_allclose(labels.boxes_px, list(expected.values()), atol=5e-3)  # OpenCV's polygons are float32
    np.testing.assert_allclose(labels.depth_m, boxes[list(expected), 1], atol=1e-5)


def test_augmented_boxes_and_noisy_calibration_give_the_same_labels():
    """Boxes moved by what bev_aug says, an image augmentation, and an injected error: labels stay those of the raw image."""
    boxes = random_boxes(40)
    (expected,) = project_boxes(boxes)
    moved = LiDARInstance3DBoxes(torch.tensor(boxes, dtype=torch.float32), origin=(0.5, 0.5, 0.5))
    angle, scale, shift = 0.6, 1.05, [0.5, -0.3, 0.2]
    moved.flip('horizontal')
    moved.rotate(angle)
    moved.scale(scale)
    moved.translate(torch.tensor(shift))
    bev_aug = np.eye(4)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    bev_aug[:3, :3] = scale * turn @ np.diag([1.0, -1.0, 1.0])
    bev_aug[:3, 3] = shift
    noise = torch.eye(4)
    noise[0, 3] = 0.5
    calibration = aug(scale=(0.5, 0.5), hw=(40, 50)).with_noise(noise[None, None])
    results = dict(calibration=calibration, bev_aug=bev_aug, eval_ann_info=dict(gt_bboxes_3d=moved, gt_labels_3d=np.arange(40)))
    (labels,) = ProjectImageBoxes().transform(results)['img_labels']
    assert torch.equal(labels.labels, expected.labels)
    np.testing.assert_allclose(labels.boxes_px, expected.boxes_px, atol=2e-2)
    np.testing.assert_allclose(labels.depth_m, expected.depth_m, atol=1e-4)
    with pytest.raises(DataError, match='put LoadAnnotations3D before'):
        ProjectImageBoxes().transform(dict(calibration=calibration))


# lidarseg points to images


def lidarseg(tmp_path, points, categories, calibration=None, classes=CLASSES, info_path='v/seg.bin', **more):
    cloud = np.zeros((len(points), 5), dtype=np.float32)
    cloud[:, :3] = points
    cloud.tofile(tmp_path / 'points.bin')
    np.array(categories, dtype=np.uint8).tofile(tmp_path / 'seg.bin')
    results = dict(calibration=calibration or rig(), lidar_points=dict(lidar_path=str(tmp_path / 'points.bin')), token='s',
                   **more)
    if info_path:
        results['pts_semantic_mask_path'] = info_path
    return ProjectLidarsegLabels(classes, str(tmp_path), radius_px=1).transform(results)['img_labels']


def test_lidarseg_by_hand(tmp_path):
    """Pixel (49.5 + 100 x / y, 39.5 - 100 z / y): (0.55, 10, -1.0) is at (55, 49.5); the nearer car hides part of the road."""
    points = [[0.55, 10, -1.05], [0.33, 6, -0.57], [-2, 5, 0.2], [0.55, -10, 0], [-4.96, 10, 3.96]]
    categories = [24, 17, 0, 17, 28]  # driveable surface, car, noise (ignored), a car behind, manmade in the very corner
    (labels,) = lidarseg(tmp_path, points, categories)
    expected = np.full((80, 100), IGNORED)
    ids = {name: i for i, name in enumerate(semantic_classes(CLASSES))}
    expected[49:52, 54:57] = ids['ground']
    expected[48:51, 54:57] = ids['car']
    expected[0:2, 0:2] = ids['static']
    np.testing.assert_array_equal(labels.sem_seg.numpy(), expected)
    assert len(labels.labels) == 0


def test_both_projections_make_one_label(tmp_path):
    boxes = LiDARInstance3DBoxes(torch.tensor([[0, 10.0, 0, 2, 2, 2, 0]]), origin=(0.5, 0.5, 0.5))
    results = dict(gt_bboxes_3d=boxes, gt_labels_3d=np.array([2]), calibration=rig())
    first = lidarseg(tmp_path, [[0.0, 10, 0]], [24], img_labels=ProjectImageBoxes().transform(dict(results))['img_labels'])
    second = ProjectImageBoxes().transform({**results, 'img_labels': lidarseg(tmp_path, [[0.0, 10, 0]], [24])})['img_labels']
    for (one,) in (first, second):
        assert one.labels.tolist() == [2] and (one.sem_seg != IGNORED).sum() == 9


def test_lidarseg_files_that_do_not_fit_are_named(tmp_path):
    for arguments, message in (
        (dict(points=[[0, 9, 0]] * 2, categories=[1]), r'seg\.bin has 1 labels up to 1 for 2 points'),
        (dict(points=[[0, 9, 0]], categories=[32]), r'seg\.bin has 1 labels up to 32 for 1 points and 32 categories'),
        (dict(points=[[0, 9, 0]], categories=[1], info_path='other.bin'), r'other\.bin does not exist'),
        (dict(points=[[0, 9, 0]], categories=[1], info_path=None), 'sample s has no pts_semantic_mask_path'),
    ):
        with pytest.raises(ValueError, match=message):
            lidarseg(tmp_path, **arguments)


def test_lidarseg_categories_are_the_devkits():
    """Our table against the devkit's order of categories and its own ten detection classes."""
    from nuscenes.eval.detection.utils import category_to_detection_name
    from nuscenes.utils.color_map import get_colormap
    names = list(get_colormap())
    assert len(LIDARSEG_CLASSES) == len(names) == 32
    others = {'flat.driveable_surface': 'ground', 'flat.other': 'ground', 'flat.sidewalk': 'ground', 'flat.terrain': 'ground',
              'static.manmade': 'static', 'static.vegetation': 'static'}
    for name, found in zip(names, LIDARSEG_CLASSES):
        assert found == (category_to_detection_name(name) or others.get(name)), name


# both ways meet


def test_rendered_boxes_lie_in_the_projected_ones(nano_infos_root, tmp_path):
    """Labels that the renderer counted in pixels against 3-D annotations through infos and Calibration, of things at rest."""
    settings = make_settings('nano', 0, scene_names=('scene-0916',), camera_labels=True)  # a scene of the nano world
    generate_dataset(tmp_path, settings, progress=False)
    infos = pickle.loads((nano_infos_root / 'nuscenes_infos_val.pkl').read_bytes())
    own = {infos['metainfo']['categories'][name]: label for label, name in enumerate(CLASSES)}
    checked, overlaps = 0, []
    for info in [info for info in infos['data_list'] if info['scene_name'] == 'scene-0916']:
        at_rest = [i for i in info['instances'] if np.linalg.norm(i['velocity']) < 0.05 and i['bbox_label_3d'] in own]
        tensor = torch.tensor([i['bbox_3d'] for i in at_rest], dtype=torch.float32)
        images = {name: {**image, 'img_path': str(tmp_path / 'samples' / name / image['img_path'].split('/')[-1])}
                  for name, image in info['images'].items()}
        results = dict(calibration=Calibration.from_info(images), images=images, gt_labels_3d=np.array(
            [own[i['bbox_label_3d']] for i in at_rest]), gt_bboxes_3d=LiDARInstance3DBoxes(tensor, origin=(0.5, 0.5, 0.5)))
        rendered = LoadImageLabels(CLASSES).transform(dict(results))['img_labels']
        projected = ProjectImageBoxes().transform(dict(results))['img_labels']
        for seen, whole in zip(rendered, projected):
            for row in range(len(seen.labels)):
                same = (whole.labels == seen.labels[row]) & ((whole.depth_m - seen.depth_m[row]).abs() < 0.01)
                if same.sum() != 1:  # moving, far or never met by the LiDAR
                    continue
                small, large = seen.boxes_px[row], whole.boxes_px[same][0]
                # mmdet3d's boxes stand upright in the LiDAR's frame, which leans by a degree or so: 3 px at the end of a bus
                assert (small[:2] > large[:2] - 3.5).all() and (small[2:] < large[2:] + 3.5).all()
                sides = torch.stack([small[2:] - small[:2], large[2:] - large[:2]])
                if sides.min() > 10:
                    overlaps.append(float(sides[0].prod() / sides[1].prod()))
                checked += 1
    # rendered boxes hold only what is in sight; the quarter that is seen best fills more than 90 % of the projected ones
    assert checked > 100 and np.quantile(overlaps, 0.75) > 0.9
