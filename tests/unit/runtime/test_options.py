"""`--cfg-options` keep what is written, and end in one line where it cannot stand for what it replaces."""

import argparse

import pytest
from mmengine.config import Config

from projects.memfusion.runtime import OptionsAction, UserError, naming_options
from projects.memfusion.runtime.options import check_options


def parse(*words):
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction)
    return parser.parse_args(['--cfg-options', *words]).cfg_options


@pytest.mark.parametrize(('text', 'value'), [
    ('my runs/epoch 1.pth', 'my runs/epoch 1.pth'), ('  padded ', 'padded'), ('', ''), ('a=b', 'a=b'),
    ('3', 3), ('-1', -1), ('1e-3', 1e-3), ('.5', 0.5), ('nan', pytest.approx(float('nan'), nan_ok=True)),
    ('True', True), ('false', False), ('None', None), ('none', 'none'), ('night', 'night'), ('1_000', 1000),
    ('1,2', [1, 2]), ('a, b c ,d', ['a', 'b c', 'd']), ('[car]', ['car']), ('[]', []), ('car,', ['car']),
    ('[(1, 2), [a, b], c]', [(1, 2), ['a', 'b'], 'c']), ("['a, b', c]", ['a, b', 'c']),
    ('"runs/a, b.pth"', 'runs/a, b.pth'), ("'2024'", '2024'), ('"[1, 2]"', [1, 2]),
    ("it's here", "it's here"), ('runs/[old]/x.pth', 'runs/[old]/x.pth'), ('(a', '(a'), ("['b", "['b"),
])
def test_values_are_kept_as_they_are_written(text, value):
    read = parse(f'key.sub={text}')['key.sub']
    assert read == value and type(read) in (type(value), float)


def test_options_add_up_and_the_last_one_counts():
    assert parse('a=1', 'b=x y', 'a=2') == {'a': 2, 'b': 'x y'}


@pytest.mark.parametrize(('word', 'message'), [
    ('foo', '--cfg-options foo: is not KEY=VALUE'), ('=3', 'is not KEY=VALUE'), ('1.pth', 'quote a value that has spaces'),
    ('a=[(1, 2])]', r'has a "]" that closes nothing'), ('a=1,(2', r'misses a \)'), ('a=(1, [2)', r'misses a ]')])
def test_an_option_that_is_none_is_one_line(word, message):
    with pytest.raises(UserError, match=message):
        parse(word)


CONFIG = dict(
    lr=0.1, class_names=['car'], groups=1,
    model=dict(type='Toy', alpha=1, range=[1.0, 2.0], names=['a'], layers=[dict(depth=1)], memory=dict(size=3), extra=None),
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), load_from=None, work_dir='x',
    train_dataloader=dict(drop_last=True, dataset=dict(ann_file='x.pkl')))


@pytest.mark.parametrize(('key', 'value', 'message'), [
    ('model.alpha', 'abc', 'model.alpha takes a number, as 1 is'), ('model.alpha', True, 'takes a number'),
    ('model.memory', 5, 'is a part of the config with keys of its own'), ('model', 'x', 'is a part of the config'),
    ('model.layers', 'x', 'is a list of 1 parts'), ('model.layers', [1], 'is a list of 1 parts'),
    ('model.range', 'wide', r"takes a list.*model.range=\[wide\]"), ('model.names', 'car', r"model.names=\[car\]"),
    ('train_dataloader.drop_last', 'maybe', 'takes True or False'),
    ('train_dataloader.dataset.ann_file', 3, 'takes text'), ('train_dataloader.dataset.ann_file', ['a', 'b'], 'quote'),
    ('lr', 0.2, 'is a variable of the config file, .*set optim_wrapper.optimizer.lr'),
])
def test_an_option_must_be_of_the_kind_it_replaces(key, value, message):
    with pytest.raises(UserError, match=f'--cfg-options {key}.*{message}'):
        check_options(Config(CONFIG), {key: value})


@pytest.mark.parametrize(('key', 'value'), [
    ('model.alpha', 0.5), ('model.alpha', None), ('model.alpha', [1, 2]), ('model.range', (3, 4)), ('model.range', 5),
    ('model.memory', None), ('model.layers', []), ('model.extra', 'x'), ('train_dataloader.drop_last', 0),
    ('load_from', 'a b.pth'), ('class_names', ['bus'])])
def test_what_may_replace_it_does(key, value, capsys):
    check_options(Config(CONFIG), {key: value})
    assert capsys.readouterr().err == ''


def test_a_variable_of_the_file_is_warned_of(capsys):
    check_options(Config(CONFIG), {'groups': 2})
    assert 'groups: "groups" is a variable of the config file' in capsys.readouterr().err


def test_a_word_for_a_list_may_be_a_file_of_names(tmp_path):
    (tmp_path / 'names.txt').write_text('car\n')
    check_options(Config(CONFIG), {'model.names': str(tmp_path / 'names.txt')})


def test_an_error_of_others_code_names_the_option_it_was_built_with():
    from projects.memfusion.runtime import init_registry
    init_registry()
    from mmdet3d.registry import MODELS
    second = dict(type='SECOND', layer_nums=[1, 1], layer_strides=[2, 2], out_channels=[8, 8, 8])
    cfg = Config(dict(model=dict(backbone=second)))
    with pytest.raises(UserError, match=r'--cfg-options model.backbone.out_channels=\[8, 8, 8\]: SECOND cannot be used'):
        with naming_options(cfg, {'work_dir': 'x', 'model.backbone.out_channels': [8, 8, 8]}):
            MODELS.build(cfg.model.backbone)
    with pytest.raises(ZeroDivisionError):  # a defect elsewhere stays one
        with naming_options(cfg, {'model.backbone.out_channels': [8, 8, 8]}):
            raise ZeroDivisionError
