"""torch.save files load as torch loads them, where they hold what is listed; anything else is refused before it is called."""

import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from projects.common.safe_tensors import load_listed


class Note:
    """A type of one's own."""

    def __init__(self, text):
        self.text = text


class Call:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced




CONTENT = dict(half=torch.arange(6).half().reshape(2, 3).t(), mask=torch.tensor([True]), parameter=nn.Parameter(torch.ones(2)),
               notes=[Note({'a': {1, 2}})], bytes=b'ab', state=nn.BatchNorm1d(2).state_dict())


@pytest.mark.parametrize('zipped', [True, False])
def test_listed_types_and_tensors_load(tmp_path, zipped):
    torch.save(CONTENT, tmp_path / 'a.pt', _use_new_zipfile_serialization=zipped)
    loaded = load_listed(tmp_path / 'a.pt', [Note], mmap=zipped)
    assert torch.equal(loaded['half'], CONTENT['half']) and loaded['half'].stride() == (1, 3)
    assert loaded['notes'][0].text == {'a': {1, 2}} and loaded['bytes'] == b'ab' and loaded['parameter'].requires_grad
    assert all(torch.equal(a, b) for a, b in zip(loaded['state'].values(), CONTENT['state'].values()))
    with pytest.raises(pickle.UnpicklingError, match='Unsupported global.*Note'):
        load_listed(tmp_path / 'a.pt', [])


@pytest.mark.parametrize('zipped', [True, False])
def test_calls_are_refused_and_not_made(tmp_path, zipped):
    marker = tmp_path / 'ran'
    for planted in (Call(os.mkdir, (str(marker),)), Call(getattr, (Note, '__init__')), np.array([Call(os.getcwd, ())], object)):
        torch.save(dict(a=torch.ones(1), b=[Note(planted)]), tmp_path / 'evil.pt', _use_new_zipfile_serialization=zipped)
        with pytest.raises(pickle.UnpicklingError, match='Unsupported global'):
            load_listed(tmp_path / 'evil.pt', [Note])
    assert not marker.exists()


def test_classes_cannot_be_changed(tmp_path):
    torch.save(dict(a=Note), tmp_path / 'a.pt')
    import zipfile
    with zipfile.ZipFile(tmp_path / 'a.pt') as source, zipfile.ZipFile(tmp_path / 'evil.pt', 'w') as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith('data.pkl'):  # {}, or rather: the class with the state (None, {'planted': 1})
                data = pickle.dumps(Note, protocol=2)[:-1] + b'N}X\x07\x00\x00\x00plantedK\x01s\x86b.'
            target.writestr(name, data)
    pickle.loads(data_of(tmp_path / 'evil.pt'))
    assert Note.planted == 1, 'pickle does so, so its absence below means something'
    del Note.planted
    with pytest.raises(pickle.UnpicklingError, match='setattr'):
        load_listed(tmp_path / 'evil.pt', [Note])
    assert not hasattr(Note, 'planted')


def data_of(path):
    import zipfile
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith('data.pkl')))


def test_programs_of_torchscript_are_refused(tmp_path):
    torch.jit.script(nn.ReLU()).save(str(tmp_path / 'a.pt'))
    with pytest.raises(pickle.UnpicklingError, match='ScriptModule'):
        load_listed(tmp_path / 'a.pt', [])
