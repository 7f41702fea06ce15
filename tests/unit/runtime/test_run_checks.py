"""The parts of an assembled run are compared before data are read; whatever is here runs, whatever contradicts is named."""

import copy
from pathlib import Path

import pytest
from mmengine.config import Config
from torch import nn

from projects.memfusion.runtime import UserError, check_architecture, check_run, init_registry
from projects.memfusion.runtime.run_checks import check_checkpoint, check_values

DEMO = 'configs/demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py'
PERMUTED = ['car', 'truck', 'trailer', 'bus', 'construction_vehicle', 'bicycle', 'motorcycle', 'pedestrian', 'traffic_cone',
            'barrier']
SUBSET = ['car', 'bus', 'pedestrian']
PHASES = ('train', 'val', 'test')


@pytest.fixture(scope='module')
def parsed(repo):
    init_registry()
    names = dict(demo=DEMO, cbgs='configs/ablation/xmem-gate_cbgs_tiny-synthetic.py',
                 cameras='configs/fusion/futrpp-multitask_r18_pillar04_second_secfpn_tiny-synthetic.py',
                 center='configs/lidar/centerpoint_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py',
                 ring='configs/query/sparsebev_r18_fpn_tiny-synthetic.py',
                 anchor='configs/lidar/pointpillars_hv_secfpn_sbn-all_8xb4-2x_nus-3d.py')
    return {name: Config.fromfile(repo / path) for name, path in names.items()}


@pytest.fixture
def cfg(parsed):
    def make(name='demo', **options):
        made = copy.deepcopy(parsed[name])
        made.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
        return made

    return make


def innermost(dataset):
    return innermost(dataset.dataset) if 'dataset' in dataset else dataset


def subset_of(made):
    """A config of the three classes everywhere."""
    for loader in (made.train_dataloader, made.val_dataloader, made.test_dataloader):
        innermost(loader.dataset).metainfo.classes = SUBSET
    made.model.pts_bbox_head.tasks = [dict(num_class=2, class_names=SUBSET[:2]), dict(num_class=1, class_names=SUBSET[2:])]
    return made


# -- classes ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', ['demo', 'cbgs', 'cameras', 'center', 'ring', 'anchor'])
def test_what_is_here_passes(cfg, name):
    assert [check_run(cfg(name), phase) for phase in PHASES] == [[], [], []]


@pytest.mark.parametrize(('loader', 'phase'), [('train', 'train'), ('val', 'train'), ('val', 'val'), ('test', 'test')])
def test_classes_in_another_order_are_refused_naming_both_lists(cfg, loader, phase):
    made = cfg('demo', **{f'{loader}_dataloader__dataset__metainfo__classes': PERMUTED})
    with pytest.raises(UserError, match=rf'pts_bbox_head.tasks has 10: car, truck, construction_vehicle.*{loader}_dataloader.'
                                        r'dataset.metainfo.classes has the same classes in another order.*car, truck, trailer'):
        check_run(made, phase)


def test_a_data_set_that_says_nothing_has_its_own_order(cfg):
    made = cfg('demo')
    made.test_dataloader.dataset.pop('metainfo')  # then mmdet3d's
    with pytest.raises(UserError, match='in another order'):
        check_run(made, 'test')


def test_wrapped_data_sets_are_looked_into(cfg):
    made = cfg('cbgs')
    made.train_dataloader.dataset.dataset.metainfo.classes = PERMUTED
    with pytest.raises(UserError, match='train_dataloader.dataset.dataset.metainfo.classes'):
        check_run(made, 'train')
    other = copy.deepcopy(cfg('demo').train_dataloader.dataset)
    other.metainfo.classes = PERMUTED
    made = cfg('demo')
    made.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[made.train_dataloader.dataset, other])
    with pytest.raises(UserError, match='train_dataloader.dataset.datasets.1.metainfo.classes'):
        check_run(made, 'train')


def test_a_subset_works_where_head_and_data_sets_agree(cfg):
    made = subset_of(cfg('demo'))
    assert [check_run(made, phase) for phase in PHASES] == [[], [], []]
    with pytest.raises(UserError, match='tasks has 10.*has other classes: car, bus, pedestrian'):
        check_run(cfg('demo', train_dataloader__dataset__metainfo__classes=SUBSET), 'train')


def test_a_head_that_only_counts(cfg):
    with pytest.raises(UserError, match='num_classes=7, but train_dataloader.dataset.metainfo.classes has 10'):
        check_run(cfg('anchor', model__pts_bbox_head__num_classes=7), 'train')
    with pytest.raises(UserError, match='img_boxes.num_classes=9'):
        check_run(cfg('cameras', model__task_heads__img_boxes__num_classes=9), 'test')


def test_a_head_without_names_means_what_it_was_trained_with(cfg):
    names = list(cfg('anchor').train_dataloader.dataset.metainfo.classes)
    made = cfg('anchor', test_dataloader__dataset__metainfo__classes=names[::-1])
    with pytest.raises(UserError, match='train_dataloader.dataset.metainfo.classes has 10.*test_dataloader.dataset.metainfo.'
                                        'classes has the same classes in another order'):
        check_run(made, 'test')


def test_what_stands_beside_means_the_same(cfg):
    made = cfg('center')
    step = next(s for s in innermost(made.train_dataloader.dataset).pipeline if s['type'] == 'SeededObjectSample')
    step.db_sampler.classes = PERMUTED
    with pytest.raises(UserError, match=r'pipeline.3.db_sampler.classes has the same classes in another order'):
        check_run(made, 'train')
    with pytest.raises(UserError, match='task_heads.bev_seg.classes has the same classes in another order'):
        check_run(cfg('cameras', model__task_heads__bev_seg__classes=PERMUTED), 'test')
    made = cfg('cameras')
    made.test_evaluator[3].field = 'pred_occupancy'
    with pytest.raises(UserError, match=r"test_evaluator.3.field='pred_occupancy': no BEVSegHead.*pred_bev_seg"):
        check_run(made, 'test')
    made.test_evaluator[3].field = 'pred_bev_seg'
    made.test_evaluator[3].groups = dict(vehicle=['car'])
    with pytest.raises(UserError, match=r'test_evaluator.3.groups=.*differs from the groups of its BEVSegHead'):
        check_run(made, 'test')


def test_a_name_filter_must_keep_what_the_data_set_has(cfg):
    made = cfg('demo')
    place, step = next((i, s) for i, s in enumerate(made.train_dataloader.dataset.pipeline) if s['type'] == 'ObjectNameFilter')
    step.classes = SUBSET  # it would keep the data set's first three classes
    with pytest.raises(UserError, match=f'pipeline.{place}.classes has 3: car, bus, pedestrian .*has also truck'):
        check_run(made, 'train')


@pytest.mark.parametrize(('said', 'message'), [
    ('car', r'a list of names, test_dataloader.dataset.metainfo.classes=\[car\]'), ([], 'one or more names'),
    ([1, 2], 'one or more names'), (['car', 'car'], 'names car more than once')])
def test_classes_are_a_list_of_names(cfg, said, message):
    with pytest.raises(UserError, match=message):
        check_run(cfg('demo', test_dataloader__dataset__metainfo__classes=said), 'test')


def test_classes_may_come_from_a_file(cfg, tmp_path):
    names = cfg('demo').test_dataloader.dataset.metainfo.classes
    (tmp_path / 'names.txt').write_text('\n'.join(names) + '\n')
    check_run(cfg('demo', test_dataloader__dataset__metainfo__classes=str(tmp_path / 'names.txt')), 'test')


@pytest.mark.parametrize('meta', [dict(dataset_meta=dict(classes=PERMUTED)), dict(dataset_meta=dict(CLASSES=tuple(PERMUTED))),
                                  dict(CLASSES=tuple(PERMUTED))])
def test_a_checkpoint_of_other_classes_is_refused(cfg, meta):
    made, weights = cfg('demo'), {'pts_bbox_head.a': 1}
    for training in (False, True):
        with pytest.raises(UserError, match='a.pth: was trained on 10 classes, car, truck, trailer.*tasks has 10'):
            check_checkpoint(dict(meta=meta, state_dict=weights), 'a.pth', made, 'test', training)
    assert check_checkpoint(dict(meta=meta, state_dict={'pts_neck.a': 1}), 'a.pth', made, 'test') == []  # no head in it


def test_training_may_start_from_another_data_sets_classes(cfg):
    made = cfg('demo')
    other = dict(meta=dict(dataset_meta=dict(classes=['a'])), state_dict={'pts_bbox_head.a': 1})
    assert 'was trained on 1 classes, a' in check_checkpoint(other, 'a.pth', made, 'train', for_training=True)[0]
    with pytest.raises(UserError):
        check_checkpoint(other, 'a.pth', made, 'test')
    own = dict(meta=dict(dataset_meta=dict(classes=tuple(made.class_names))), state_dict={'pts_bbox_head.a': 1})
    assert check_checkpoint(own, 'a.pth', made, 'test') == [] == check_checkpoint(dict(state_dict={}), 'a.pth', made, 'test')


# -- ranges -----------------------------------------------------------------------------------------------------------
WIDE = [-102.4, -102.4, -5.0, 102.4, 102.4, 3.0]


def test_pipelines_filter_what_the_model_covers(cfg):
    made = cfg('demo', model__grid__point_cloud_range=WIDE)
    with pytest.raises(UserError, match=r'train_dataloader.dataset.pipeline.5.point_cloud_range=\[-25.6, -25.6, -5, 25.6, '
                                        r'25.6, 3\] \(PointsRangeFilter\), but model.grid.point_cloud_range=\[-102.4'):
        check_run(made, 'train')
    assert 'was trained on another range' in check_run(made, 'test')[0]  # its own pipeline has no filter
    made.test_dataloader.dataset.pipeline.insert(2, dict(type='PointsRangeFilter', point_cloud_range=[-9, -9, -5, 9, 9, 3]))
    with pytest.raises(UserError, match='test_dataloader.dataset.pipeline.2.point_cloud_range'):
        check_run(made, 'test')


def test_ranges_inside_wrappers_in_z_and_of_evaluators(cfg):
    made = cfg('cbgs')
    made.train_dataloader.dataset.dataset.pipeline[6].point_cloud_range = WIDE
    with pytest.raises(UserError, match=r'dataset.dataset.pipeline.6.*ObjectRangeFilter'):
        check_run(made, 'train')
    made = cfg('demo')
    filters = made.train_dataloader.dataset.pipeline[5]
    filters.point_cloud_range = [-25.6, -25.6, -9.0, 25.6, 25.6, 9.0]  # the model decides
    check_run(made, 'train')
    filters.point_cloud_range = [-25.6, -25.6, -1.0, 25.6, 25.6, 3.0]
    with pytest.raises(UserError, match='narrower in z'):
        check_run(made, 'train')
    made = cfg('cameras')
    made.test_evaluator[3].point_cloud_range = WIDE
    with pytest.raises(UserError, match=r'test_evaluator.3.point_cloud_range=.*BEVSegMetric'):
        check_run(made, 'test')


def test_mmdet3ds_own_detectors_are_held_to_their_voxel_layer(cfg):
    made = cfg('center', model__data_preprocessor__voxel_layer__point_cloud_range=WIDE)
    with pytest.raises(UserError, match='model.data_preprocessor.voxel_layer.point_cloud_range'):
        check_run(made, 'train')
    with pytest.raises(UserError, match=r'post_center_range=\[-61.2.*is narrower than .*voxel_layer.point_cloud_range'):
        check_run(made, 'test')


# -- evaluators -------------------------------------------------------------------------------------------------------
def test_evaluators_score_the_split_that_is_tested(cfg, tmp_path):
    for name, text in dict(a='1', b='1', c='2').items():
        (tmp_path / f'{name}.pkl').write_text(text)
    options = dict(test_dataloader__dataset__data_root=str(tmp_path), test_dataloader__dataset__ann_file='a.pkl')
    for name in ('a', 'b'):  # b is a copy
        check_run(cfg('demo', test_evaluator__ann_file=str(tmp_path / f'{name}.pkl'), **options), 'test')
    made = cfg('demo', test_evaluator__ann_file=str(tmp_path / 'c.pkl'), **options)
    with pytest.raises(UserError, match=r'test_evaluator.ann_file=.*c.pkl, but test_dataloader.dataset reads .*a.pkl'):
        check_run(made, 'test')


# -- settings ---------------------------------------------------------------------------------------------------------
NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize(('key', 'values', 'takes'), [
    ('model.temporal.alpha', ['abc', NAN, INF, -1, True, None, [1]], 'a number of at least 0'),
    ('model.temporal.max_mem_frames', ['big', 0, -1, 2.5, True, None], 'a whole number of at least 1'),
    ('model.temporal.top_k', ['x', 0, 1.5], 'a whole number of at least 1 or None'),
    ('model.temporal.key_position', ['maybe', 2, None], 'True or False'),
    ('model.temporal.mask_source', [3, None], 'text'),
    ('model.temporal.network.key_dim', [0, -8, 8.5, 'x'], 'a whole number of at least 1'),
    ('model.temporal.loss_occ.warmup_iters', [5, [1], ['a', 'b']], 'a list of 2 whole numbers'),
    ('model.grid.voxel_size', [0.4, 'x', [0.4, 'x', 8], [0, 0.4, 8], [NAN, 1, 1]], 'a list of numbers above 0'),
    ('model.grid.out_size_factor', [0, 1.5, True], 'a whole number of at least 1'),
    ('model.test_cfg.seq_len', ['x', 0, 2.5], 'a whole number of at least 1'),
    ('model.train_cfg.frozen', ['pts_backbone'], 'a list of words: write'),
    ('model.train_cfg.grad_frames', [0, 1.5], 'a whole number of at least 1 or None'),
    ('model.test_cfg.pts.nms_thr', ['x', -1], 'a number or a list of numbers'),
    ('train_dataloader.batch_size', ['two', 0, -1, 1.5, NAN, True, None], 'a (whole )?number'),
    ('train_dataloader.num_workers', [-1, 'x', 0.5], 'a whole number of at least 0'),
    ('train_dataloader.dataset.seq_len', [2.5, 0, 'x', None], 'a whole number of at least 1'),
    ('train_dataloader.dataset.pipeline.1.sweeps_num', [-1, 2.5, 'x'], 'a whole number of at least 0'),
    ('train_dataloader.dataset.pipeline.0.load_dim', [0, 'x', 4.5], 'a whole number of at least 3'),
    ('train_dataloader.dataset.pipeline.4.rot_range', [0.3, 'x', [0.1], [0, INF]], 'a list of 2 numbers'),
    ('train_dataloader.dataset.pipeline.4.flip_ratio_bev_vertical', [2, 'x', -0.1], 'a number from 0 to 1'),
    ('optim_wrapper.optimizer.lr', ['fast', -1, NAN, INF, None], 'a number'),
    ('optim_wrapper.optimizer.weight_decay', [-1, 'x'], 'a number of at least 0'),
    ('optim_wrapper.optimizer.betas', [0.9, (0.9, 1.5), 'x'], 'a list of 2 numbers from 0 below 1'),
    ('optim_wrapper.clip_grad.max_norm', ['x', 0, -1], 'a number above 0'),
    ('randomness.seed', ['abc', -1, 1.5, 2**32], 'a whole number from 0 to 4294967295 or None'),
    ('train_cfg.max_epochs', [1.5, 0, -1, 'x', None], 'a whole number of at least 1'),
    ('train_cfg.val_interval', [0, 'x'], 'a whole number of at least 1'),
    ('default_hooks.checkpoint.interval', ['x', 0.5], 'a whole number of at least -1'),
    ('param_scheduler.0.pct_start', [3, 'x'], 'a number from 0 to 1'),
    ('load_from', [5, True], 'text or None'),
])
def test_settings_name_the_key_and_what_it_takes(cfg, key, values, takes):
    for value in values:
        made = cfg('demo', **{key.replace('.', '__'): value})
        with pytest.raises(UserError, match=rf'^{key}=.*: takes {takes}'):
            check_values(made)


@pytest.mark.parametrize(('key', 'value'), [
    ('model.temporal.alpha', 1), ('model.temporal.top_k', None), ('model.temporal', None), ('optim_wrapper.clip_grad', None),
    ('model.grid.voxel_size', (0.4, 0.4, 8)), ('train_dataloader.num_workers', 4), ('randomness.seed', None),
    ('train_dataloader.dataset.pipeline.0.use_dim', [0, 1, 2, 3, 4]), ('optim_wrapper.clip_grad.max_norm', INF),
    ('default_hooks.checkpoint.interval', -1), ('train_dataloader.dataset.num_sweeps', None), ('load_from', None),
    ('train_dataloader.drop_last', True), ('train_dataloader.dataset.indices', [0, 1]), ('param_scheduler', None)])
def test_unusual_settings_that_work_pass(cfg, key, value):
    check_values(cfg('demo', **{key.replace('.', '__'): value}))


def test_settings_that_do_not_exist_or_do_not_go_together(cfg):
    with pytest.raises(UserError, match='model.temporal.alhpa=1: TemporalMemory has no such setting; did you mean alpha'):
        check_values(cfg('demo', model__temporal__alhpa=1))
    with pytest.raises(UserError, match='train_dataloader.num_workers=0 cannot go with .*persistent_workers=True'):
        check_values(cfg('demo', train_dataloader__num_workers=0))
    made = cfg('demo')
    made.model.temporal.masks = dict(block_cells=0)
    with pytest.raises(UserError, match='model.temporal.masks.block_cells=0: takes a whole number of at least 1'):
        check_values(made)
    with pytest.raises(UserError, match='model.grid: grid.point_cloud_range goes from 25.6 to -25.6 m along x'):
        check_values(cfg('demo', model__grid__point_cloud_range=[25.6, -25.6, -5, -25.6, 25.6, 3]))


# -- weights ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('value', [NAN, INF, -INF])
def test_weights_that_are_not_finite_are_named(value):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    check_architecture(model, state, 'a.pth')
    state['1.running_var'][1] = value
    with pytest.raises(UserError, match='a.pth: has weights that are NaN or infinite: 1.running_var. Its training had'):
        check_architecture(model, state, 'a.pth')
    state['0.weight'].fill_(value)
    with pytest.raises(UserError, match='0.weight, 1.running_var'):
        check_architecture(model, state, 'a.pth', allow_missing_slots=True)


def test_the_runner_checks_before_anything_is_written(cfg, tmp_path):
    from projects.memfusion.runtime import build_runner
    out = Path(tmp_path) / 'out'
    for phase, options in (('test', dict(test_dataloader__dataset__metainfo__classes=PERMUTED)),
                           (None, dict(train_dataloader__batch_size='two'))):
        with pytest.raises(UserError):
            build_runner(cfg('demo', work_dir=str(out), **options), phase=phase)
    assert not out.exists()


# -- clips ------------------------------------------------------------------------------------------------------------
def test_clips_shorter_than_the_frames_asked_for_are_refused(cfg):
    short = cfg('ring', model__temporal__num_frames=3)
    with pytest.raises(UserError, match=r'train_dataloader\.dataset\.seq_len=2 is shorter than model\.temporal\.num_frames=3'):
        check_run(short, 'train')
    assert check_run(short, 'test') == []  # streaming: frames come one by one
    window = cfg('ring', model__test_cfg__mode='window', model__test_cfg__seq_len=1)
    with pytest.raises(UserError, match=r'model\.test_cfg\.seq_len=1 is shorter than model\.temporal\.num_frames=2'):
        check_run(window, 'test')
