"""What the tests of made rooms share: rooms in small images, and classifiers that look for leaks."""

import functools

import numpy as np

from projects.spatial_mllm.rooms.generate import make_room
from projects.spatial_mllm.rooms.settings import make_settings

SMALL = dict(image_size=28, min_pixel_share=0.004)


@functools.lru_cache(maxsize=4)
def rooms(count, path='independent', seed=3):
    """(scene, questions, situated questions) of so many rooms, in images of 28 pixels."""
    settings = make_settings('nano', seed, path=path, **SMALL)
    return [make_room(settings, 'train', index) for index in range(count)]


def asked(made, kinds):
    """(room's number, question) of the kinds."""
    return [(number, question) for number, (_, own, situated) in enumerate(made) for question in (*own, *situated)
            if question.kind in kinds]


def best_accuracy(features, labels, groups):
    """The better of two classifiers that learn on the rooms with even numbers, on the others: ridge regression on random waves
    of the features, and the nearest neighbours."""
    features = np.asarray(features, dtype=float)
    features = (features - features.mean(0)) / (features.std(0) + 1e-9)
    names, classes = np.unique(labels, return_inverse=True)
    learn = np.asarray(groups) % 2 == 0
    rng = np.random.default_rng(0)
    waves = np.cos(features @ rng.normal(size=(features.shape[1], 150)) / np.sqrt(features.shape[1]) + rng.uniform(0, 6.3, 150))
    wide = np.column_stack([features, waves, np.ones(len(features))])
    target = np.eye(len(names))[classes]
    weights = np.linalg.solve(wide[learn].T @ wide[learn] + 10 * np.eye(wide.shape[1]), wide[learn].T @ target[learn])
    by_ridge = (wide[~learn] @ weights).argmax(1)
    apart = ((features[~learn, None] - features[None, learn]) ** 2).sum(-1)
    nearest = np.argsort(apart, axis=1, kind='stable')[:, :15]
    by_neighbours = target[learn][nearest].sum(1).argmax(1)
    return max((guess == classes[~learn]).mean() for guess in (by_ridge, by_neighbours)), int((~learn).sum())


def at_most_chance(accuracy, count, chance):
    """Within 4 standard errors above chance; what is asked twice with two names swapped counts once."""
    return accuracy <= chance + 4 * np.sqrt(chance * (1 - chance) / (count / 2))
