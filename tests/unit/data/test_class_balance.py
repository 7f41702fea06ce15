"""Class-balanced clip starts: SeededCBGSDataset around NuScenesSequenceDataset, against mmdet3d's resampling."""

from collections import Counter

import numpy as np
import pytest
from mmdet3d.datasets import CBGSDataset

from projects.memfusion.data.nuscenes_sequence import NuScenesSequenceDataset
from projects.memfusion.data.seeding import SeededCBGSDataset, item_seed, seeded

CLIPS = dict(seq_len=2, stride=2, num_sweeps=1)


def metas(clip):
    return [frame['data_samples'].metainfo for frame in clip]


@pytest.fixture(scope='module')
def present(clips):
    """Classes that last frames of clips have; mmdet3d's own resampling divides by zero for any other."""
    dataset = clips(**CLIPS)
    names = dataset.metainfo['classes']
    return [names[label] for label in sorted(set().union(*(dataset.get_cat_ids(i) for i in range(len(dataset)))) - {-1})]


@pytest.fixture
def wrap(clips):
    def make(seed=0, **arguments):
        return SeededCBGSDataset(clips(**{**CLIPS, **arguments}), seed=seed)
    return make


def test_the_same_draws_as_mmdet3d(clips, wrap, present):
    for arguments in (CLIPS, dict(seq_len=3, stride=1, num_sweeps=1)):
        dataset = clips(metainfo=dict(classes=present), **arguments)
        with seeded(item_seed(5, 0, 0)):
            stock = CBGSDataset(dataset).sample_indices
        assert wrap(seed=5, metainfo=dict(classes=present), **arguments).sample_indices == stock
        assert max(stock) < len(dataset)


def test_items_are_clips_whose_last_frames_have_the_classes(wrap):
    dataset = wrap()
    inner = dataset.dataset
    assert len(inner) == 6 and set(dataset.sample_indices) <= set(range(6))
    assert {inner.frame_indices[inner.clip_ends[i]] for i in dataset.sample_indices} <= {1, 3, 4}
    for item in range(0, len(dataset), 7):
        frames = metas(dataset[item])
        assert len(frames) == 2
        assert frames[-1]['frame_index'] == dataset.get_data_info(item)['frame_index']
        assert dataset.get_cat_ids(item) == set(dataset.get_data_info(item)['ann_info']['gt_labels_3d'].tolist())


def test_rare_classes_are_drawn_more_often(wrap):
    dataset = wrap()
    inner = dataset.dataset
    plain = Counter(label for i in range(len(inner)) for label in inner.get_cat_ids(i) if label >= 0)
    drawn = Counter(label for i in dataset.sample_indices for label in inner.get_cat_ids(i) if label >= 0)
    common, rare = plain.most_common()[0][0], plain.most_common()[-1][0]
    assert plain[rare] < plain[common]
    assert drawn[rare] / drawn[common] > plain[rare] / plain[common]


def test_absent_classes_are_left_out_and_reported(wrap, monkeypatch):
    messages = []
    monkeypatch.setattr('projects.memfusion.data.seeding.print_log', lambda text, *_, **__: messages.append(text))
    found = {0: {0, 2}, 1: {0, 2, -1}, 2: {0}, 3: {0}, 4: {2}, 5: {2}}
    monkeypatch.setattr(NuScenesSequenceDataset, 'get_cat_ids', lambda self, index: found[index])
    # Four classes share eight occurrences: each of the two that there are gets a fourth of them.
    drawn = wrap(metainfo=dict(classes=['car', 'truck', 'bus', 'trailer'])).sample_indices
    assert len(drawn) == 4 and set(drawn[:2]) <= {0, 1, 2, 3} and set(drawn[2:]) <= {0, 1, 4, 5}
    assert len(messages) == 1 and 'has no truck, trailer' in messages[0]
    monkeypatch.setattr(NuScenesSequenceDataset, 'get_cat_ids', lambda self, index: {-1})
    with pytest.raises(ValueError, match='no object of the classes'):
        wrap(metainfo=dict(classes=['car', 'truck', 'bus']))


def test_repeated_clips_get_other_augmentations_by_seed_epoch_and_index(wrap):
    dataset = wrap(augment=True)
    for part in (dataset, dataset.dataset):  # EpochSeedHook tells both
        part.set_epoch(0)
    first = dataset.sample_indices.index(next(i for i, n in Counter(dataset.sample_indices).items() if n > 1))
    again = dataset.sample_indices.index(dataset.sample_indices[first], first + 1)
    a, b = metas(dataset[first]), metas(dataset[again])
    assert a[-1]['sample_token'] == b[-1]['sample_token'] and not np.allclose(a[-1]['bev_aug'], b[-1]['bev_aug'])
    assert np.array_equal(a[0]['bev_aug'], a[-1]['bev_aug'])
    assert np.array_equal(metas(dataset[first])[-1]['bev_aug'], a[-1]['bev_aug'])
    for part in (dataset, dataset.dataset):
        part.set_epoch(1)
    assert not np.allclose(metas(dataset[first])[-1]['bev_aug'], a[-1]['bev_aug'])
