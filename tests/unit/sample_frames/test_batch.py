"""The command: one JSON file for many videos, gone on with; bad videos named and counted; scenes by name."""

import json
import runpy
import shutil

import numpy as np
import pytest
from PIL import Image

from projects.geometry.frame_sampling import PointClouds, Video, build_sampler
from projects.memfusion.runtime.errors import UserError
from projects.sample_frames.batch import sample_all, sample_one
from projects.sample_frames.geometry_file import SeeOptions
from projects.sample_frames.sources import Source, Sources


@pytest.fixture(scope='module')
def tool(repo):
    return runpy.run_path(str(repo / 'tools' / 'sample_frames.py'))['main']


@pytest.fixture
def run(tool, capsys):
    """run(words): exit code and what was printed."""
    def make(*words):
        code = 0
        try:
            tool([str(word) for word in words])
        except SystemExit as error:
            code = error.code
        return code, capsys.readouterr().out.splitlines()
    return make


def test_a_list_is_done_but_for_what_is_bad_and_gone_on_with(run, make_video, tmp_path, geometry):
    good, other = make_video('walk.avi'), make_video('other.avi')
    np.savez(tmp_path / 'walk.npz', **geometry)
    (tmp_path / 'bad.mp4').write_bytes(b'nothing')
    names = [str(good), str(tmp_path / 'bad.mp4'), str(other), str(tmp_path / 'gone.mp4')]
    (tmp_path / 'list.txt').write_text('\n'.join(names) + '\n')
    command = (tmp_path / 'list.txt', '--sampler', 'sa', '--frames', 4, '--voxel', 1, '--out', tmp_path / 'out' / 'a.json')
    code, lines = run(*command)
    assert code == 1 and lines[0].startswith(f'[1/4] {good}: 4 of 12 frames, coverage 0.')
    assert 'bad.mp4 is not a readable video' in lines[1] and 'needs to know what a frame sees' in lines[2]
    assert 'gone.mp4: no such video' in lines[3] and lines[4].startswith('1 sampled, 3 failed')
    found = json.loads((tmp_path / 'out' / 'a.json').read_text())
    assert list(found['videos']) == names[:1] and list(found['failed']) == names[1:]
    entry = found['videos'][names[0]]
    assert len(entry['indices']) == 4 and entry['report']['gains'][0] == 4 and entry['num_frames'] == 12
    assert len(list((tmp_path / 'out' / 'a').glob('*walk.avi.png'))) == 1
    np.savez(tmp_path / 'other.npz', **geometry)
    code, lines = run(*command)
    assert code == 1 and lines[0].endswith('done before') and '4 of 12 frames' in lines[2]
    with pytest.raises(UserError, match='a.json was made with other settings .*voxel_m.*: give another --out'):
        run(*command[:6], 2, *command[7:])


def test_rows_are_frames_of_the_video_that_the_file_names(make_video, tmp_path, geometry):
    video = make_video()
    np.savez(tmp_path / 'walk.npz', frames=np.arange(0, 12, 3), **{name: value[:4] for name, value in geometry.items()})
    source = Sources(SeeOptions(voxel_m=1.0)).open(str(video))
    entry = sample_one(source, build_sampler(dict(type='uniform', num_frames=2)))
    assert entry['indices'] == [0, 9] and entry['num_frames'] == 4
    np.savez(tmp_path / 'walk.npz', **{name: value[:4] for name, value in geometry.items()})
    with pytest.raises(ValueError, match='walk.avi has 12 frames, but .*walk.npz has 4 rows: `frames` must say which'):
        Sources(SeeOptions()).open(str(video))
    np.savez(tmp_path / 'walk.npz', frames=np.array([0, 1, 2, 12]), **{name: value[:4] for name, value in geometry.items()})
    with pytest.raises(ValueError, match='walk.npz: frames names frame 12, but .*walk.avi has 12 frames'):
        Sources(SeeOptions()).open(str(video))


def test_where_the_geometry_lies(make_video, tmp_path, geometry):
    video, folder = make_video(), tmp_path / 'poses'
    folder.mkdir()
    np.savez(folder / 'walk.npz', **geometry)
    for where in (folder, folder / 'walk.npz'):
        assert Sources(SeeOptions(), where).open(str(video)).video.world_from_cam is not None
    assert Sources(SeeOptions()).open(str(video)).video.world_from_cam is None
    with pytest.raises(FileNotFoundError, match='no geometry of this video'):
        Sources(SeeOptions(), tmp_path / 'empty').open(str(video))
    with pytest.raises(UserError, match='is one file for 2 videos: give a folder with NAME.npz for each'):
        Sources(SeeOptions(), folder / 'walk.npz').names(['a.mp4', 'b.mp4'])
    alone = Sources(SeeOptions(voxel_m=1.0)).open(str(folder / 'walk.npz'))
    entry = sample_one(alone, build_sampler(dict(type='mergeaware_sa', num_frames=4)))
    assert alone.pixels is None and len(entry['indices']) == 4


def test_a_defect_in_one_video_does_not_end_the_batch(make_video, tmp_path):
    class Faulty(Sources):
        def open(self, name):
            if name == 'b':
                raise RuntimeError('broken')
            return super().open(str(make_video()))

    lines = []
    results = sample_all(['a', 'b', 'c'], Faulty(SeeOptions()), build_sampler(dict(type='uniform', num_frames=3)),
                         tmp_path / 'r.json', {}, None, lines.append)
    assert list(results.videos) == ['a', 'c'] and results.failed == {'b': 'RuntimeError: broken'} and len(lines) == 3


def test_scenes_by_name(run, nano_root, tmp_path):
    scene = json.loads((nano_root / 'v1.0-mini' / 'scene.json').read_text())[0]
    command = (scene['name'], 'scene-none', '--root', nano_root, '--frames', 2, '--sampler')
    code, lines = run(*command, 'efficient', '--out', tmp_path / 'lidar.json')
    assert code == 1 and "v1.0-mini has no scene 'scene-none'. It has " in lines[1]
    entry = json.loads((tmp_path / 'lidar.json').read_text())['videos'][scene['name']]
    assert entry['num_frames'] == scene['nbr_samples'] and len(entry['names']) == 2 and entry['names'][0] != entry['names'][1]
    assert 0 < entry['report']['coverage'] <= 1 and entry['report']['gains'][0] > 100
    picture = np.asarray(Image.open(tmp_path / 'lidar' / f'{scene["name"]}.png'))
    assert picture.shape[2] == 3 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    code, _ = run('all', *command[2:], 'mergeaware_uniform', '--sees', 'frustum', '--range', 20, '--voxel', 2, '--no-pictures',
                  '--sampler-options', 'pair.max_baseline_m=100', '--out', tmp_path / 'frustum.json')
    entry = json.loads((tmp_path / 'frustum.json').read_text())['videos'][scene['name']]
    assert code == 0 and entry['report']['pair_overlap_mean'] > 0 and entry['report']['pairs_beyond_bounds'] == 0


def test_every_video_gets_a_picture_of_its_own(make_video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'sub').mkdir()
    names = [str(make_video(name).relative_to(tmp_path)) for name in ('walk.avi', 'sub/walk.avi', 'sub_walk.avi')]
    names += ['./walk.avi', str(tmp_path / ('./' * 150) / 'walk.avi').replace('/walk', '/./' * 80 + 'walk')]
    results = sample_all(names, Sources(SeeOptions()), build_sampler(dict(type='uniform', num_frames=3)),
                         tmp_path / 'r.json', {}, tmp_path / 'r', lambda line: None)
    assert not results.failed and len(list((tmp_path / 'r').iterdir())) == 5
    assert (tmp_path / 'r' / 'walk.avi.png').is_file() and (tmp_path / 'r' / 'sub_walk.avi.png').is_file()


def test_a_choice_of_nothing_has_a_picture(tmp_path):
    clouds = PointClouds(9, 1.0, lambda frame: np.full((int(frame == 4), 3), 0.5))
    video = Video(9, 'dark', world_from_cam=np.tile(np.eye(4), (9, 1, 1)), visible=clouds)
    sampler = build_sampler(dict(type='efficient', num_frames=1, candidates=2))
    entry = sample_one(Source(video, np.arange(9), None, False), sampler, tmp_path / 'dark.png')
    assert entry['indices'] == [] and entry['report']['coverage'] == 0 and (tmp_path / 'dark.png').is_file()


def test_a_list_that_is_no_text_is_named(run, tmp_path):
    (tmp_path / 'list.txt').write_bytes(b'\xff\xfe\xe9.mp4')
    with pytest.raises(UserError, match='list.txt is no list of videos in UTF-8'):
        run(tmp_path / 'list.txt', '--sampler', 'uniform', '--frames', 4, '--out', tmp_path / 'a.json')


def test_a_keyframe_without_a_channel_spoils_its_scene_alone(nano_root, tmp_path):
    for entry in nano_root.iterdir():
        if entry.name != 'v1.0-mini':
            (tmp_path / entry.name).symlink_to(entry.resolve())
    shutil.copytree(nano_root / 'v1.0-mini', tmp_path / 'v1.0-mini')
    table = tmp_path / 'v1.0-mini' / 'sample_data.json'
    records = json.loads(table.read_text())
    first = next(record for record in records if record['is_key_frame'] and '/LIDAR_TOP/' in record['filename'])
    first['is_key_frame'] = False
    table.write_text(json.dumps(records))
    name = json.loads((tmp_path / 'v1.0-mini' / 'scene.json').read_text())[0]['name']
    with pytest.raises(ValueError, match=f"keyframe {first['sample_token']} of {name} has no LIDAR_TOP"):
        Sources(SeeOptions(), root=tmp_path).open(name)
    assert Sources(SeeOptions('frustum'), root=tmp_path).open(name).video.num_frames > 1


@pytest.mark.parametrize('words, message', [
    (('a.mp4', '--sampler', 'best', '--frames', 4, '--out', 'a.json'), "no frame sampler 'best'"),
    (('a.mp4', '--sampler', 'mergeaware_sa', '--frames', 5, '--out', 'a.json'), 'even number of frames'),
    (('a.mp4', '--sampler', 'sa', '--frames', 4, '--out', 'a.txt'), '--out a.txt must be a .json file'),
    (('all', '--sampler', 'sa', '--frames', 4, '--out', 'a.json'), 'all means every scene of a data set: give --root'),
])
def test_settings_that_cannot_be_used(run, words, message):
    with pytest.raises(ValueError if 'sampler' in message or 'even' in message else UserError, match=message):
        run(*words)
    with pytest.raises(FileNotFoundError):
        run('none.txt', '--sampler', 'sa', '--frames', 4, '--out', 'a.json')


def test_a_file_that_is_no_result_is_left_alone(run, make_video, tmp_path):
    (tmp_path / 'a.json').write_text('{"mine": 1}')
    with pytest.raises(UserError, match="a.json is there, and is no result of this tool .*: give another --out"):
        run(make_video(), '--sampler', 'uniform', '--frames', 4, '--out', tmp_path / 'a.json')
    assert (tmp_path / 'a.json').read_text() == '{"mine": 1}'
