"""A detector with cameras, memory and several heads on the nano world: two processes, broken sensors, the robustness tool."""

import json

import mmengine
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config

from projects.memfusion.runtime.launch import init_registry

from .conftest import largest_difference, load

pytestmark = pytest.mark.slow
FUSED = """
_base_ = ['{repo}/configs/fusion/futrpp-xmem-residual_r18_pillar04_second_secfpn_tiny-synthetic.py']
groups = dict(vehicle=['car', 'truck', 'construction_vehicle', 'bus', 'trailer'], person=['pedestrian'])
model = dict(
    grid=dict(voxel_size=[0.8, 0.8, 8.0]),
    pts_voxel_encoder=dict(feat_channels=[8]), pts_middle_encoder=dict(in_channels=8),
    pts_backbone=dict(in_channels=8, out_channels=[8, 8, 16], layer_nums=[1, 1, 1]),
    pts_neck=dict(in_channels=[8, 8, 16], out_channels=[8, 8, 8]),
    pts_bbox_head=dict(in_channels=24, share_conv_channel=16,
                       separate_head=dict(type='SeparateHead', head_conv=8, init_bias=-2.19, final_kernel=3),
                       bbox_coder=dict(score_threshold=0.01)),
    img_backbone=dict(base_channels=8), img_neck=dict(in_channels=[16, 32], out_channels=16),
    # All cells are active: which ones a ranking chooses hangs on the last digits, and those on the batch.
    fusion_layer=dict(bev_channels=24, img_channels=16, tokens=dict(grid=2, dim=16), sample=dict(num_heads=2),
                      select=dict(active_ratio=1.0, random_share=0.0), calib_refine=dict(kind='pose', confidence=True)),
    temporal=dict(network=dict(in_channels=24, key_dim=8, value_dim=8, hidden_dim=8, feature_dim=16)),
    task_heads=dict(
        boxes=dict(type='ImageCenterHead', in_channels=16, num_classes=10, stride=8, feat_channels=8),
        cells=dict(type='BEVSegHead', in_channels=24, classes={{{{_base_.class_names}}}}, groups=groups, channels=8)),
    test_cfg=dict(pts=dict(score_threshold=0.0)))


def smaller(pipeline, boxes_after):
    sizes = dict(ResizeImages=dict(width=176), CropImages=dict(size=(96, 176)), LoadMultiViewImages=dict(on_bad_image='mask'))
    steps = [dict(step, **sizes.get(step['type'], dict())) for step in pipeline]
    place = [step['type'] for step in steps].index(boxes_after) + 1
    return [*steps[:place], dict(type='ProjectImageBoxes'), *steps[place:]]


train_pipeline = smaller(_base_.train_pipeline, 'LoadAnnotations3D')
test_pipeline = smaller(_base_.test_pipeline, 'LoadMultiViewImages')
del smaller
alone = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    sampler=dict(shuffle=False), **alone,
    dataset=dict(data_root='{root}', ann_file='{infos}', pipeline=train_pipeline, indices=6, on_bad_frame='drop'))
val_dataloader = dict(dataset=dict(data_root='{root}', pipeline=test_pipeline), **alone)
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='ImageBBoxMetric'),
    dict(type='OrderedNuScenesMetric', data_root='{root}', ann_file='{root}nuscenes_infos_val.pkl', metric='bbox')]
test_evaluator = val_evaluator
load_from = '{start}'
train_cfg = dict(max_epochs=1, val_interval=10)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.01))
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=-1, save_best=None), logger=dict(interval=1))
custom_hooks = [dict(type='EpochSeedHook'), dict(type='FreezeBatchNormHook'), dict(type='SessionResetHook')]
"""


@pytest.fixture(scope='module')
def broken_infos(nano_infos_root, tmp_path_factory):
    """The training infos with a frame without any image, one without boxes and one without points."""
    content = mmengine.load(nano_infos_root / 'nuscenes_infos_train.pkl')
    first = [info for info in content['data_list'] if info['scene_token'] == content['data_list'][0]['scene_token']]
    assert len(first) == 5  # a clip ends at each, and the sixth is another scene's first
    for image in first[1]['images'].values():
        image['img_path'] = 'gone.jpg'
    first[2]['instances'] = []
    first[4]['lidar_points']['lidar_path'] = 'gone.bin'
    path = tmp_path_factory.mktemp('broken') / 'nuscenes_infos_train.pkl'
    mmengine.dump(content, path)
    return path


@pytest.fixture(scope='module')
def fused_config(repo, nano_infos_root, broken_infos, tmp_path_factory):
    """The config of a small detector, and its first weights, none of which is zero (a new fusion layer does nothing)."""
    folder = tmp_path_factory.mktemp('fused')
    path, start = folder / 'fused_nano.py', folder / 'start.pth'
    path.write_text(FUSED.format(repo=repo, root=f'{nano_infos_root}/', infos=broken_infos, start=start))
    init_registry()
    torch.manual_seed(0)
    state = MODELS.build(Config.fromfile(path).model).state_dict()
    generator = torch.Generator().manual_seed(1)
    for name, value in sorted(state.items()):
        if value.dtype.is_floating_point and 'log_locality' not in name:
            noise = torch.rand(value.shape, generator=generator) * 0.1
            value.add_(noise if 'var' in name else noise - 0.05)
    torch.save(dict(state_dict=state, meta={}), start)
    return path


@pytest.fixture(scope='module')
def trained(run, fused_config, tmp_path_factory):
    """Three steps with two clips each, in one process."""
    out = tmp_path_factory.mktemp('one')
    run('tools/train.py', fused_config, '--work-dir', out)
    return out


def test_two_processes_learn_what_one_does_where_sensors_are_missing(distributed, fused_config, trained, tmp_path):
    """Rank 0 has clips 0, 2, 4 (no boxes; last frame dropped), rank 1 has 1, 3, 5 (last frame without images; all there)."""
    distributed('dist_train.sh', fused_config, 2, '--work-dir', tmp_path, '--cfg-options', 'train_dataloader.batch_size=1')
    before, one, two = (load(path) for path in (
        fused_config.with_name('start.pth'), trained / 'epoch_1.pth', tmp_path / 'epoch_1.pth'))
    log = next(trained.rglob('*.log')).read_text()
    assert log.count('masked a camera') >= 6 and 'dropped frame' in log
    assert all(torch.isfinite(value).all() for value in one.values())
    assert largest_difference(one, two) < 1e-5
    # Nothing reads the second level; with one frame of gradient what memory writes is not taught.
    idle = ('img_neck.fpn_convs.1', 'temporal.network')
    still = [name for name in before if name.endswith('weight') and torch.equal(before[name], one[name])]
    assert [name for name in still if not name.startswith(idle)] == [], 'where nothing is learned, equality proves nothing'


def scores_of(folder):
    """What tools/test.py wrote of its metrics."""
    path, = (path for path in folder.rglob('*.json') if path.stem == path.parent.name)
    return json.loads(path.read_text())


@pytest.fixture(scope='module')
def scored(run, fused_config, trained, tmp_path_factory):
    """tools/test.py in one process: folder with scores and submission."""
    out = tmp_path_factory.mktemp('scored')
    run('tools/test.py', fused_config, trained / 'epoch_1.pth', '--work-dir', out, '--cfg-options',
        f'test_evaluator.1.jsonfile_prefix={out}')
    return out


def test_two_processes_score_cameras_as_one(distributed, fused_config, trained, scored, tmp_path):
    distributed('dist_test.sh', fused_config, trained / 'epoch_1.pth', 2, '--work-dir', tmp_path, '--cfg-options',
                f'test_evaluator.1.jsonfile_prefix={tmp_path}')
    boxes, two = (json.loads(next(out.rglob('results_nusc.json')).read_text())['results'] for out in (scored, tmp_path))
    assert boxes == two and sum(map(len, boxes.values())) > 0
    scores, two = ({key: value for key, value in scores_of(out).items() if 'time' not in key} for out in (scored, tmp_path))
    assert json.dumps(scores) == json.dumps(two)  # some are nan, which equals nothing
    assert scores['image_bbox/num_truth'] > 50 and 'NuScenes metric/NDS' in scores


def test_robustness_tool(run, tool, repo, fused_config, trained, scored, tmp_path):
    out, checkpoint = tmp_path / 'out', trained / 'epoch_1.pth'
    given = ('tools/robustness.py', fused_config, checkpoint, '--out', out, '--only', 'time_offset_s')
    said = run(*given).stdout
    written = json.loads((out / 'robustness.json').read_text())
    names = ['clean', 'images other_scene', 'images blank', 'images masked',
             *[f'time offset {ms} ms' for ms in (25, 50, 100)]]
    assert list(written['scores']) == names
    assert all(0 <= score <= 100 for one in written['scores'].values() for score in (one['mAP'], one['NDS']))
    # The clean condition is what tools/test.py gives.
    plain = scores_of(scored)
    assert written['scores']['clean'] == {name: 100 * plain[f'NuScenes metric/{name}'] for name in ('mAP', 'NDS')}
    report = (out / 'robustness.md').read_text()
    verdict = 'the cameras are NOT used'  # three steps teach nobody to look
    assert verdict in said and verdict in report and 'break-even of time offset' in report
    assert all(f'| {name} |' in report for name in names)
    assert not written['summary']['used'] and set(written['summary']['break_even']['time_offset_s']) == {'mAP', 'NDS'}
    assert (out / 'robustness.png').read_bytes().startswith(b'\x89PNG')

    # What is finished is not tested again, and no mistake changes what is there.
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    lidar = repo / 'configs/fusion/lidar-only_pillar04_second_secfpn_tiny-synthetic.py'
    weights = torch.load(checkpoint, weights_only=False)
    weights['state_dict'] = {key: value for key, value in weights['state_dict'].items() if key.startswith('pts_')}
    torch.save(weights, tmp_path / 'lidar.pth')
    fresh = ('--out', tmp_path / 'fresh')
    for arguments, words in (
        ((fused_config, tmp_path / 'lidar.pth', '--out', out), ('robustness.json', 'give another --out')),
        ((fused_config, tmp_path / 'lidar.pth', *fresh), ('lidar.pth', 'only in the model', 'img_backbone')),
        ((lidar, tmp_path / 'lidar.pth', *fresh), ('no LoadMultiViewImages', 'configs/fusion')),
    ):
        done = tool('tools/robustness.py', *arguments)
        assert done.returncode == 2 and 'Traceback' not in done.stderr, done.stderr
        assert all(word in done.stderr for word in words), done.stderr
    assert not any(path.is_file() for path in (tmp_path / 'fresh').glob('*'))
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
