"""Images and calibration of a frame: the nano world and a real keyframe, and every kind of bad input by camera and sample."""

import copy
import pickle
import shutil

import cv2
import numpy as np
import pytest
import torch

from projects.memfusion.data.errors import BadFrameError
from projects.memfusion.data.image_files import read_image
from projects.memfusion.data.nuscenes_tables import CAMERAS
from projects.memfusion.data.transforms import LoadMultiViewImages
from projects.memfusion.structures.calibration import Calibration

from .multiview import nano_frames


@pytest.fixture(scope='module')
def nano(nano_infos_root):
    return nano_frames(nano_infos_root)


def test_images_and_calibration_of_a_frame(nano):
    results = LoadMultiViewImages()(nano())
    calibration = results['calibration']
    assert calibration.cam_names == CAMERAS and calibration.cam_valid.all() and results['num_masked_cameras'] == 0
    for name, image in zip(CAMERAS, results['img']):
        expected = cv2.imread(results['images'][name]['img_path'])
        assert image.dtype == np.uint8 and np.array_equal(image, expected)  # BGR
    assert float(calibration.t_lidar) == results['lidar_points']['timestamp']
    assert calibration.t_cam[0].tolist() == [results['images'][name]['timestamp'] for name in CAMERAS]
    # through global, with the ego pose at each stamp, in float64 and by hand
    for index, name in enumerate(CAMERAS):
        image = results['images'][name]
        chain = np.linalg.inv(np.array(image['ego2global']) @ np.array(image['cam2ego'])) @ results['global_from_lidar']
        assert np.abs(calibration.cam_from_lidar[0, index].numpy() - chain).max() < 1e-4


def test_cameras_by_name_in_any_order(nano):
    names = ['CAM_BACK', 'CAM_FRONT']
    some, all_of_them = LoadMultiViewImages(cam_names=names)(nano()), LoadMultiViewImages()(nano())
    assert some['calibration'].cam_names == ('CAM_BACK', 'CAM_FRONT')
    for index, name in enumerate(names):
        other = CAMERAS.index(name)
        assert np.array_equal(some['img'][index], all_of_them['img'][other])
        assert torch.equal(some['calibration'].cam_from_lidar[:, index], all_of_them['calibration'].cam_from_lidar[:, other])


def test_extrinsics_are_made_where_the_info_has_none(nano):
    results = nano()
    whole = LoadMultiViewImages()(copy.deepcopy(results))['calibration']
    for image in results['images'].values():
        del image['lidar2cam']
    made = LoadMultiViewImages()(results)['calibration']
    assert (made.cam_from_lidar - whole.cam_from_lidar).abs().max() < 1e-4


def test_a_keyframe(keyframe_dir):
    info = pickle.loads(next(keyframe_dir.glob('*.pkl')).read_bytes())['data_list'][0]
    for image in info['images'].values():
        image['img_path'] = str(keyframe_dir / image['img_path'])
    results = LoadMultiViewImages()(info)
    calibration = results['calibration']
    assert calibration.img_hw_raw.tolist() == [[[900, 1600]] * 6] and calibration.cam_valid.all()  # sizes from the images
    assert float((calibration.t_cam - calibration.t_lidar[:, None]).abs().max()) < 0.05
    # annotated boxes that hold points stand in some image, and the one in front of the car where nuScenes' own K puts it
    assert np.array_equal(results['img'][0], cv2.imread(info['images']['CAM_FRONT']['img_path']))
    boxes = [i['bbox_3d'] for i in info['instances'] if i['num_lidar_pts'] > 5]
    centers = torch.tensor([box[:3] for box in boxes])[None]
    uv_px, depth_m, valid = calibration.project(centers)
    assert valid[0].any(0).float().mean() > 0.95
    ahead = int(valid[0, 0].nonzero()[0, 0])
    point = np.array(info['images']['CAM_FRONT']['lidar2cam']) @ [*boxes[ahead][:3], 1]
    pixel = np.array(info['images']['CAM_FRONT']['cam2img']) @ (point[:3] / point[2])
    assert np.abs(uv_px[0, 0, ahead].numpy() - pixel[:2]).max() < 1e-2
    assert abs(float(depth_m[0, 0, ahead]) - point[2]) < 1e-4


# -- bad input: each names camera and sample, and with 'mask' only that camera is masked --------------------------------------
BAD = 'CAM_BACK_LEFT'  # the inverse of a camera that looks straight back is that camera


def missing(results, image, tmp_path):
    image['img_path'] += '.gone'


def truncated(results, image, tmp_path):
    content = open(image['img_path'], 'rb').read()
    image['img_path'] = str(tmp_path / 'cut.jpg')
    open(image['img_path'], 'wb').write(content[:-200])


def damaged(results, image, tmp_path):
    content = open(image['img_path'], 'rb').read()
    third = len(content) // 3
    image['img_path'] = str(tmp_path / 'noise.jpg')
    noise = np.random.default_rng(0).bytes(third)
    open(image['img_path'], 'wb').write(content[:third] + noise + content[2 * third:])


def empty(results, image, tmp_path):
    image['img_path'] = str(tmp_path / 'empty.jpg')
    open(image['img_path'], 'wb')


def no_image(results, image, tmp_path):
    image['img_path'] = str(tmp_path / 'text.jpg')
    open(image['img_path'], 'wb').write(b'not an image at all')


def other_size(results, image, tmp_path):
    pixels = cv2.imread(image['img_path'])
    image['img_path'] = str(tmp_path / 'half.png')
    cv2.imwrite(image['img_path'], pixels[::2, ::2])


def late(results, image, tmp_path):
    image['timestamp'] += 0.7


def no_calibration(results, image, tmp_path):
    del image['cam2img']


def no_extrinsics(results, image, tmp_path):
    for key in ('lidar2cam', 'cam2ego'):
        del image[key]


def transposed_k(results, image, tmp_path):
    image['cam2img'] = np.array(image['cam2img']).T.tolist()


def scaled_rotation(results, image, tmp_path):
    matrix = np.array(image['lidar2cam'])
    matrix[:3, :3] *= 1.01
    image['lidar2cam'] = matrix.tolist()


def inverted_extrinsics(results, image, tmp_path):
    image['lidar2cam'] = np.linalg.inv(np.array(image['lidar2cam'])).tolist()


def no_entry(results, image, tmp_path):
    results['images'][BAD] = None


def no_coefficients(results, image, tmp_path):
    image['distortion'] = dict(model='radtan')


def absent(results, image, tmp_path):
    del results['images'][BAD]


FAULTS = [missing, truncated, damaged, empty, no_image, other_size, late, no_calibration, no_extrinsics, transposed_k,
          scaled_rotation, inverted_extrinsics, no_entry, no_coefficients, absent]


@pytest.mark.parametrize('fault', FAULTS, ids=lambda fault: fault.__name__)
def test_bad_input_is_named_or_masked(nano, tmp_path, fault):
    results = nano()
    fault(results, results['images'][BAD], tmp_path)
    with pytest.raises(ValueError, match=f'(?s)(?=.*{BAD})(?=.*{results["sample_token"]})'):
        LoadMultiViewImages(cam_names=CAMERAS)(copy.deepcopy(results))
    masked = LoadMultiViewImages(cam_names=CAMERAS, on_bad_image='mask')(results)
    good = LoadMultiViewImages()(nano())
    valid = masked['calibration'].cam_valid[0].tolist()
    assert valid == [name != BAD for name in CAMERAS] and masked['num_masked_cameras'] == 1
    assert all(list(image.shape[:2]) == size for image, size in zip(masked['img'], masked['calibration'].img_hw[0].tolist()))
    for index in (i for i, name in enumerate(CAMERAS) if name != BAD):
        assert np.array_equal(masked['img'][index], good['img'][index])
        assert torch.equal(masked['calibration'].cam_from_lidar[:, index], good['calibration'].cam_from_lidar[:, index])


@pytest.mark.parametrize('fault', [missing, truncated, damaged, no_image], ids=lambda fault: fault.__name__)
def test_broken_files_can_be_dropped_with_their_frame(nano, tmp_path, fault):
    results = nano()
    fault(results, results['images'][BAD], tmp_path)
    with pytest.raises(BadFrameError, match=BAD):
        LoadMultiViewImages()(results)


def test_a_camera_that_is_there_twice(nano):
    results = nano()
    results['images']['CAM_LEFT'] = dict(results['images']['CAM_BACK'])
    with pytest.raises(ValueError, match='CAM_BACK and CAM_LEFT have the same'):
        LoadMultiViewImages()(copy.deepcopy(results))
    masked = LoadMultiViewImages(on_bad_image='mask')(results)
    assert masked['num_masked_cameras'] == 2 and int(masked['calibration'].cam_valid.sum()) == 5
    with pytest.raises(ValueError, match='different cameras'):
        LoadMultiViewImages(cam_names=['CAM_BACK', 'CAM_BACK'])


def test_swapped_cameras_are_both_masked(nano):
    results = nano()
    front, back = results['images']['CAM_FRONT'], results['images']['CAM_BACK']
    for key in ('lidar2cam', 'cam2ego', 'ego2global'):
        front[key], back[key] = back[key], front[key]
    with pytest.raises(ValueError, match='CAM_FRONT.*CAM_BACK|CAM_BACK.*CAM_FRONT'):
        LoadMultiViewImages()(copy.deepcopy(results))
    masked = LoadMultiViewImages(on_bad_image='mask')(results)
    assert masked['num_masked_cameras'] == 2
    assert masked['calibration'].cam_valid[0].tolist() == [name not in ('CAM_FRONT', 'CAM_BACK') for name in CAMERAS]


def test_stamps_are_judged_by_the_limit_that_is_given(nano):
    gaps = [abs(image['timestamp'] - nano()['lidar_points']['timestamp']) for image in nano()['images'].values()]
    with pytest.raises(ValueError, match=f'max_stamp_gap_s|{max(gaps):.3f}'):
        LoadMultiViewImages(max_stamp_gap_s=max(gaps) - 1e-3)(nano())
    LoadMultiViewImages(max_stamp_gap_s=max(gaps) + 1e-3)(nano())


@pytest.mark.parametrize('on_bad_image', ['error', 'mask'])
def test_frames_between_keyframes_have_all_cameras_masked(nano, on_bad_image):
    results = nano()
    results.update(is_keyframe=False)
    del results['images']
    with pytest.raises(ValueError, match='cam_names'):
        LoadMultiViewImages()(dict(results))
    loaded = LoadMultiViewImages(cam_names=CAMERAS, on_bad_image=on_bad_image)(results)
    assert loaded['calibration'].cam_names == CAMERAS and not loaded['calibration'].cam_valid.any()
    assert loaded['num_masked_cameras'] == 0  # nothing was bad
    assert not loaded['calibration'].project(torch.tensor([[[0.0, 10.0, 0.0]]]))[2].any()


def test_a_keyframe_without_images_is_an_error(nano):
    results = nano()
    results['images'] = {}
    with pytest.raises(ValueError, match=f'{results["sample_token"]}.*CAM_FRONT'):
        LoadMultiViewImages(cam_names=CAMERAS)(results)


@pytest.mark.parametrize('change', [dict(on_bad_image='skip'), dict(max_stamp_gap_s=0.0), dict(cam_names=[])], ids=str)
def test_bad_arguments(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        LoadMultiViewImages(**change)


def test_pixels_are_read_as_they_lie(tmp_path, nano, monkeypatch):
    """A turn that EXIF asks for is not done: the calibration is of the sensor's rows and columns."""
    jpeg = open(nano()['images']['CAM_FRONT']['img_path'], 'rb').read()
    exif = bytes.fromhex('ffe100224578696600004d4d002a00000008000101120003000000010006000000000000')
    turned = jpeg[:2] + exif + jpeg[2:]
    (tmp_path / 'turned.jpg').write_bytes(turned)
    assert cv2.imread(str(tmp_path / 'turned.jpg')).shape[0] == 400  # OpenCV would turn it
    assert read_image(str(tmp_path / 'turned.jpg')).shape == (225, 400, 3)
    cv2.imwrite(str(tmp_path / 'deep.png'), np.full((8, 8), 40000, np.uint16))
    with pytest.raises(BadFrameError, match='deep.png.*more than 8 bits'):
        read_image(str(tmp_path / 'deep.png'))
    start = jpeg.index(bytes.fromhex('ffc0')) + 5  # height and width of the frame header
    (tmp_path / 'huge.jpg').write_bytes(jpeg[:start] + bytes.fromhex('ffdcffdc') + jpeg[start + 4:])
    for limit, words in ((None, '65500 x 65500 pixels'), (1000, 'damaged')):  # nuscenes-devkit raises Pillow's own limit
        monkeypatch.setattr('PIL.Image.MAX_IMAGE_PIXELS', limit)
        with pytest.raises(BadFrameError, match=f'huge.jpg.*{words}'):
            read_image(str(tmp_path / 'huge.jpg'))
    monkeypatch.undo()
    (tmp_path / 'longer.jpg').write_bytes(jpeg + bytes(4096))  # what some file systems leave behind a file does no harm
    expected = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(read_image(str(tmp_path / 'longer.jpg')), expected)


def test_a_calibration_of_another_size_without_sizes_in_the_info(keyframe_dir, tmp_path):
    """mmdet3d's own info has no height and width; halved images do not go with its K all the same."""
    folder = shutil.copytree(keyframe_dir, tmp_path / 'copy')
    info = pickle.loads(next(folder.glob('*.pkl')).read_bytes())['data_list'][0]
    for image in info['images'].values():
        image['img_path'] = str(folder / image['img_path'])
    path = info['images']['CAM_BACK']['img_path']
    pixels = cv2.imread(path)
    for size in ((800, 450), (1280, 720), (1920, 1080)):
        cv2.imwrite(path, cv2.resize(pixels, size))
        with pytest.raises(ValueError, match='CAM_BACK.*principal point'):
            LoadMultiViewImages()(copy.deepcopy(info))
        masked = LoadMultiViewImages(on_bad_image='mask')(copy.deepcopy(info))
        assert masked['num_masked_cameras'] == 1


def test_a_part_of_the_rig_is_judged_as_the_whole(nano):
    results, names = nano(), ['CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT']
    for name in names:
        inverted_extrinsics(results, results['images'][name], None)
    with pytest.raises(ValueError, match='CAM_FRONT_LEFT'):
        LoadMultiViewImages(cam_names=names)(copy.deepcopy(results))
    masked = LoadMultiViewImages(cam_names=names, on_bad_image='mask')(results)
    assert masked['num_masked_cameras'] > 0 and not masked['calibration'].cam_valid[0, 0]


def test_from_info_and_loader_agree(nano):
    info = nano()
    direct = Calibration.from_info(info['images'], global_from_lidar=np.array(info['global_from_lidar']),
                                   t_lidar=info['lidar_points']['timestamp'])
    loaded = LoadMultiViewImages()(info)['calibration']
    for name in ('img_from_cam', 'cam_from_lidar', 'img_hw', 'distortion', 't_cam', 't_lidar', 'cam_valid'):
        assert torch.equal(getattr(direct, name), getattr(loaded, name)), name
