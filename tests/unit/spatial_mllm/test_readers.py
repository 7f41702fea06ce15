"""Videos, what lies beside them, and the benchmarks' rows: frames on demand, numbers checked, bad rows named."""

import json
import re
import tracemalloc

import cv2
import numpy as np
import pytest

from projects.geometry.frame_sampling import DepthMaps
from projects.spatial_mllm.readers.clip import ClipReader, UnusableSampleError
from projects.spatial_mllm.readers.geometry_file import VideoGeometry, geometry_beside, read_geometry
from projects.spatial_mllm.readers.samples import read_sft, read_sqa3d, read_vsibench
from projects.spatial_mllm.readers.video import FrameFolder, open_video
from projects.spatial_mllm.rooms.generate import generate
from projects.spatial_mllm.rooms.settings import make_settings
from projects.spatial_mllm.scoring.rows import RefusedFileError


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp('rooms')
    generate(folder, make_settings('nano', 2, rooms=(2, 1, 1), image_size=28))
    return folder


def grey(number, size=(32, 24)):
    return np.full((size[1], size[0], 3), 4 * number, np.uint8)


@pytest.fixture
def film(tmp_path):
    """40 frames, each of another grey, at 10 a second."""
    writer = cv2.VideoWriter(str(tmp_path / 'film.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (32, 24))
    for number in range(40):
        writer.write(grey(number))
    writer.release()
    return tmp_path / 'film.avi'


def test_frames_of_a_film_are_decoded_on_demand_and_once(film, monkeypatch):
    video = open_video(film)
    assert video.num_frames == 40
    np.testing.assert_allclose(video.stamps_s, np.arange(40) / 10)
    frames = video.read([39, 0, 17, 17])
    assert frames.shape == (4, 24, 32, 3) and frames.dtype == np.uint8
    assert abs(frames.mean(axis=(1, 2, 3)) - [156, 0, 68, 68]).max() < 3
    decoded = []
    monkeypatch.setattr(cv2, 'cvtColor', lambda image, code: decoded.append(1) or image)
    video.read([5, 5, 5, 8])
    assert len(decoded) == 2


def test_frames_of_a_folder_go_by_their_numbers_and_are_rgb(tmp_path):
    for number in (9999, 10000, 2):
        cv2.imwrite(str(tmp_path / f'frame_{number}.png'), np.full((4, 6, 3), [number % 100, 0, 200], np.uint8))
    for other in ('notes.txt', '._frame_2.png'):  # some systems leave the second beside every file
        (tmp_path / other).write_text('')
    folder = FrameFolder(tmp_path)
    assert [path.stem for path in folder.paths] == ['frame_2', 'frame_9999', 'frame_10000']
    np.testing.assert_array_equal(folder.read([1, 0])[:, 0, 0], [[200, 0, 99], [200, 0, 2]])


def test_videos_that_cannot_be_read_are_named(tmp_path, film):
    with pytest.raises(FileNotFoundError, match='nothing.mp4'):
        open_video(tmp_path / 'nothing.mp4')
    (tmp_path / 'text.mp4').write_text('no video')
    with pytest.raises(ValueError, match='text.mp4 is not a readable video'):
        open_video(tmp_path / 'text.mp4')
    with pytest.raises(ValueError, match='film.avi has the frames 0 to 39.*40'):
        open_video(film).read([3, 40])
    (tmp_path / 'cut.avi').write_bytes(film.read_bytes()[:film.stat().st_size // 2])
    with pytest.raises(ValueError, match='cut.avi is cut off or damaged: its header says 40 frames'):
        open_video(tmp_path / 'cut.avi')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='empty holds no frames'):
        open_video(tmp_path / 'empty')
    for number, size in ((0, (8, 8)), (1, (8, 9))):
        cv2.imwrite(str(tmp_path / 'empty' / f'{number}.png'), grey(number, size))
    (tmp_path / 'empty' / '2.png').write_bytes(b'cut')
    with pytest.raises(ValueError, match='frame 1 is 8 x 9 pixels, frame 0 8 x 8'):
        open_video(tmp_path / 'empty').read([0, 1])
    with pytest.raises(ValueError, match='2.png: frame 2'):
        open_video(tmp_path / 'empty').read([2])


def geometry(count=4, **changes):
    arrays = dict(world_from_cam=np.tile(np.eye(4), (count, 1, 1)), image_hw=np.array([24, 32]),
                  intrinsics=np.array([[20.0, 0, 16], [0, 20, 12], [0, 0, 1]]), depth=np.ones((count, 24, 32), np.float32))
    return {name: value for name, value in {**arrays, **changes}.items() if value is not None}


BAD = {
    'poses or other rows for a video of 4 frames': dict(world_from_cam=np.tile(np.eye(4), (5, 1, 1)), depth=None),
    'one row for each frame': dict(world_from_cam=np.tile(np.eye(4), (5, 1, 1))),
    'world_from_cam of frame 2': dict(world_from_cam=np.stack([np.eye(4), np.eye(4), 2 * np.eye(4), np.eye(4)])),
    r'intrinsics must be \(3, 3\)': dict(intrinsics=np.eye(4)),
    'another size': dict(intrinsics=np.array([[20.0, 0, 160], [0, 20, 12], [0, 0, 1]])),
    'intrinsics without image_hw': dict(image_hw=None),
    'image_hw must be': dict(image_hw=np.array([24, 32, 3])),
    'unknown arrays': dict(poses=np.eye(4)),
    'world_from_cam missing': dict(world_from_cam=None),
    'frames must be rising whole numbers below 4': dict(frames=np.array([0, 2, 1, 3])),
    r'stamps_s must have the shape \(R\)': dict(stamps_s=np.array(3.0)),
    r'depth must have the shape \(R, h, w\), got \(4, 24, 32, 1\)': dict(depth=np.ones((4, 24, 32, 1))),
    r'world_points must have the shape \(R, h, w, 3\)': dict(world_points=np.ones((4, 2, 2, 4))),
    'world_from_cam must hold real numbers': dict(world_from_cam=np.tile(np.eye(4), (4, 1, 1)).astype(str)),
    'last row that is not 0 0 1': dict(intrinsics=np.array([[20.0, 0, 16], [0, 20, 12], [0, 0, 0]])),
}


@pytest.mark.parametrize('told', BAD)
def test_geometry_that_cannot_be_used_names_the_file(tmp_path, told):
    np.savez(tmp_path / 'scene.npz', **geometry(**BAD[told]))
    with pytest.raises(ValueError, match=f'scene.npz.*{told}'):
        read_geometry(tmp_path / 'scene.npz', 4, ('world_from_cam',))


def test_depth_of_half_the_size_has_its_own_intrinsics(tmp_path):
    path = tmp_path / 'scene.npz'
    seen = []
    for step in (1, 2):
        np.savez(path, **geometry(depth=np.full((4, 24 // step, 32 // step), 2.0, np.float32)))
        points = read_geometry(path, 4).video().visible.points(np.arange(1))[0]
        seen.append(points.reshape(24 // step, 32 // step, 3))
    np.testing.assert_allclose(seen[1], seen[0].reshape(12, 2, 16, 2, 3).mean(axis=(1, 3)), atol=1e-12)


def test_geometry_of_some_frames(tmp_path):
    path = tmp_path / 'scene.npz'
    poses = np.tile(np.eye(4), (4, 1, 1))
    poses[:, 0, 3] = np.arange(4)
    np.savez(path, **geometry(world_from_cam=poses, frames=np.array([0, 3, 5, 9]), tokens=np.zeros((4, 6, 2))))
    found = read_geometry(path, 10)
    taken = found.take([9, 3, 3])
    assert taken.world_from_cam[:, 0, 3].tolist() == [3, 1, 1] and taken.cam_from_world[:, 0, 3].tolist() == [-3, -1, -1]
    assert taken.intrinsics.shape == (3, 3, 3) and taken.tokens.shape == (3, 6, 2) and taken.depth.shape == (3, 24, 32)
    with pytest.raises(ValueError, match=r'says nothing of the frames \[4\]'):
        found.take([3, 4])
    assert isinstance(found.video().visible, DepthMaps)
    assert read_geometry(path, 10, wanted=('world_from_cam',)).depth is None
    whole = path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ValueError, match='scene.npz is not an npz file.*cut off'):
        read_geometry(path, 10)
    np.savez_compressed(path, **geometry(depth=np.random.default_rng(0).normal(size=(4, 24, 32))))
    whole = path.read_bytes()
    for place in range(200, len(whole) - 600, 997):
        path.write_bytes(whole[:place] + bytes(64) + whole[place + 64:])
        with pytest.raises(ValueError, match='scene.npz'):
            read_geometry(path, 4)
    with pytest.raises(ValueError, match='holds no poses'):
        _ = VideoGeometry('alone.npz', np.arange(3)).cam_from_world


def test_the_three_formats_of_a_made_room_ask_the_same(made):
    samples, problems = read_vsibench(made / 'train' / 'vsibench.jsonl', made, needs_geometry=True)
    talks, more = read_sft(made / 'train' / 'sft.jsonl', made)
    folder = made / 'train'
    situated, most = read_sqa3d(folder / 'sqa3d_questions.json', folder / 'sqa3d_annotations.json', made / 'rooms')
    assert problems == more == most == []
    by_key = {talk.key: talk for talk in talks}
    for name, listed in dict(vsibench=samples, sqa3d=situated).items():
        for sample in listed:
            talk = by_key.pop(f'{name}_{sample.key}')
            for part in ('prompt', 'answer', 'video', 'geometry'):
                assert getattr(sample, part) == getattr(talk, part)
            assert sample.prompt.startswith('These are frames of a video.\n')
    assert by_key == {} and samples[0].row['scene_name'] == 'train_000000' and 'row 1' in samples[0].where


def made_talk(made):
    with open(made / 'train' / 'sft.jsonl') as file:
        return json.loads(file.readline())


def test_bad_rows_are_left_out_and_named(made, tmp_path):
    rows = [json.loads(line) for line in (made / 'train' / 'vsibench.jsonl').read_text().splitlines()]
    choice = next(row for row in rows if row['options'])
    bad = [{**rows[0], 'scene_name': 'train_999999'}, {**choice, 'options': None}, {**rows[0], 'question_type': 'sudoku'},
           {key: value for key, value in rows[0].items() if key != 'question'}]
    path = tmp_path / 'mixed.jsonl'
    path.write_text('\n'.join(json.dumps(row) for row in [*bad, rows[1]]) + '\n{"id": 5, "data')
    samples, problems = read_vsibench(path, made)
    assert [sample.key for sample in samples] == ['1'] and len(problems) == 5
    told = '\n'.join(problems)
    for number, what in enumerate(('train_999999', 'options', 'sudoku', 'question', 'cut off'), 1):
        assert f'mixed.jsonl: row {number if number < 5 else 6}' in told and what in told
    talk = [{'from': 'human', 'value': 'no video'}]
    path.write_text(json.dumps([dict(id=1, video='rooms/train_000000', conversations=talk)]))
    with pytest.raises(RefusedFileError, match='mixed.jsonl: no row can be used.*row 1.*conversations'):
        read_sft(path, made)
    with pytest.raises(RefusedFileError, match="holds no list under 'annotations'"):
        read_sqa3d(made / 'val' / 'sqa3d_questions.json', made / 'val' / 'sqa3d_questions.json', made / 'rooms')
    with pytest.raises(RefusedFileError, match='no annotation for'):
        read_sqa3d(made / 'train' / 'sqa3d_questions.json', made / 'val' / 'sqa3d_annotations.json', made / 'rooms')
    other = json.loads((made / 'train' / 'sqa3d_annotations.json').read_text())
    other['annotations'][0]['scene_id'] = 'train_000001'
    del other['annotations'][1], other['annotations'][1]['question_id']
    whole = json.dumps(other)
    (tmp_path / 'other.json').write_text(whole[:whole.rindex('"answers"')])
    asked = json.loads((made / 'train' / 'sqa3d_questions.json').read_text())['questions']
    samples, problems = read_sqa3d(made / 'train' / 'sqa3d_questions.json', tmp_path / 'other.json', made / 'rooms')
    assert [sample.key for sample in samples] == [str(number) for number in range(3, len(asked) - 1)]
    for told in (f'other.json: row {len(asked) - 1} is not JSON', 'other.json: row 2 has no question_id',
                 "questions.json: row 1: question_id 0 is about 'train_000000', in .*other.json about 'train_000001'",
                 'questions.json: row 2: .*other.json has no annotation for question_id 1', f'question_id {len(asked) - 1}'):
        assert any(re.search(told, problem) for problem in problems), told
    for video in ('x' * 5000, ''):
        path.write_text(json.dumps([dict(talks, video=video) for talks in [made_talk(made)]] + [made_talk(made)]))
        samples, problems = read_sft(path, made)
        assert len(samples) == len(problems) == 1 and 'row 1' in problems[0]
    bare = tmp_path / 'rooms' / 'train_000000'
    bare.mkdir(parents=True)
    with pytest.raises(RefusedFileError, match='no poses beside the video'):
        read_vsibench(made / 'train' / 'vsibench.jsonl', tmp_path, needs_geometry=True)


@pytest.mark.parametrize('cfg', [dict(type='uniform', num_frames=4), dict(type='sa', num_frames=4, fill=True),
                                 dict(type='mergeaware_uniform', num_frames=4)])
def test_clips_hold_the_chosen_frames_and_their_poses(made, cfg):
    sample = read_vsibench(made / 'train' / 'vsibench.jsonl', made)[0][0]
    clip = ClipReader(cfg, needs=('world_from_cam', 'intrinsics'))(sample)
    assert clip.frames.shape == (4, 28, 28, 3) and len(clip.indices) == 4
    np.testing.assert_array_equal(clip.frames, FrameFolder(sample.video).read(clip.indices))
    with np.load(sample.geometry) as whole:
        np.testing.assert_array_equal(clip.geometry.world_from_cam, whole['world_from_cam'][clip.indices])
    assert (clip.geometry.depth is None) == (cfg['type'] == 'uniform') and clip.seconds_per_frame is None


def sample_of(film, tmp_path):
    path = tmp_path / 'sft.json'
    path.write_text(json.dumps([dict(id='a', video=film.stem, conversations=[
        {'from': 'human', 'value': '<video>\nWhat?'}, {'from': 'gpt', 'value': 'Grey.'}])]))
    return read_sft(path, film.parent)[0][0]


def test_clips_that_cannot_be_made_name_file_and_row(film, tmp_path, monkeypatch):
    sample = sample_of(film, tmp_path)
    assert (sample.prompt, sample.answer, sample.geometry) == ('What?', 'Grey.', None)
    clip = ClipReader(dict(type='uniform', num_frames=5))(sample)
    assert clip.geometry is None and clip.seconds_per_frame == pytest.approx(np.ptp(clip.indices) / 40)
    for cfg, needs, told in ((dict(type='uniform', num_frames=5), ['world_from_cam'], 'no npz file beside it'),
                             (dict(type='sa', num_frames=5), [], 'needs to know what a frame sees'),
                             (dict(type='uniform', num_frames=50), [], 'fewer than the 50')):
        with pytest.raises(UnusableSampleError, match=f'sft.json: row 1: .*film.*{told}'):
            ClipReader(cfg, needs)(sample)
    np.savez(geometry_beside(film), **geometry(40, image_hw=np.array([48, 64]), depth=None))
    with pytest.raises(UnusableSampleError, match=r'row 1: .*film.npz: .*48 x 64.*24 x 32'):
        ClipReader(dict(type='uniform', num_frames=5))(sample_of(film, tmp_path))
    monkeypatch.setattr(cv2, 'cvtColor', lambda image, code: (_ for _ in ()).throw(cv2.error('too many pixels')))
    geometry_beside(film).unlink()
    with pytest.raises(UnusableSampleError, match='row 1: .*too many pixels'):
        ClipReader(dict(type='uniform', num_frames=5))(sample)
    with pytest.raises(ValueError, match="no frame sampler 'best'"):
        ClipReader(dict(type='best', num_frames=5))


def test_memory_does_not_grow_with_videos(made):
    samples = read_vsibench(made / 'train' / 'vsibench.jsonl', made)[0]
    videos = list({sample.video: sample for sample in samples}.values())
    read = ClipReader(dict(type='sa', num_frames=4))
    read(videos[0])
    tracemalloc.start()
    peaks = []
    for count in (1, 8):
        tracemalloc.reset_peak()
        for sample in videos * count:
            read(sample)
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_questions_about_a_video_share_its_frames(made, monkeypatch):
    samples = read_vsibench(made / 'train' / 'vsibench.jsonl', made)[0]
    decoded, read = [], cv2.imread
    monkeypatch.setattr(cv2, 'imread', lambda path, *flags: decoded.append(path) or read(path, *flags))
    clips = ClipReader(dict(type='uniform', num_frames=4))
    seen = [clips(sample) for sample in samples]
    assert len(decoded) == len(set(decoded)) == 2 * 4 and len(samples) > 10
    np.testing.assert_array_equal(seen[-1].frames, ClipReader(dict(type='uniform', num_frames=4))(samples[-1]).frames)
    assert seen[0] is seen[1] and seen[0] is not seen[-1]


def test_a_frame_with_a_raised_digit_in_its_name_is_sorted(tmp_path):
    for name in ('10.png', '1²3.png', '9.png'):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4, 3), np.uint8))
    assert [path.name for path in FrameFolder(tmp_path).paths] == ['1²3.png', '9.png', '10.png']
