"""Plain data load as pickle loads them, in every protocol; whatever else a file names is refused before it is called."""

import argparse
import copyreg
import gc
import io
import os
import pathlib
import pickle
import sys
from collections import OrderedDict, defaultdict

import numpy as np
import pytest

from projects.common import safe_pickle
from projects.common.safe_pickle import DamagedFileError, UnsafeFileError, load_pickle, loads_pickle

PLAIN = dict(
    numbers=[1, -2.5, 2**70, True, None, 1j], texts=['x', b'\x00\xff', bytearray(b'a')], tuples=((1,), (), {2}, frozenset([3])),
    ordered=OrderedDict(b=1, a=2), counted=defaultdict(list, {1: [2]}), path=pathlib.PurePosixPath('a/b'),
    matrix=np.arange(6.0).reshape(2, 3), column_major=np.asfortranarray(np.arange(6).reshape(2, 3)), empty=np.zeros((0, 9)),
    mask=np.array([True, False]), swapped=np.array([1, 2], dtype='>i4'), names=np.array(['ab', 'c']), raw=np.array([b'ab']),
    stamp=np.datetime64('2020-01-01T00:00:01'),
    scalars=[np.float32(2), np.int64(3), np.bool_(True), np.str_('q')])


SCALAR = np.float64(0).__reduce__()[0]


class Call:
    """Pickled as a call: function, arguments and, if given, a state."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_load_as_pickle_loads_them(tmp_path, protocol):
    (tmp_path / 'a.pkl').write_bytes(pickle.dumps(PLAIN, protocol=protocol))
    loaded, wanted = load_pickle(tmp_path / 'a.pkl'), pickle.loads((tmp_path / 'a.pkl').read_bytes())
    wanted['path'] = pathlib.Path('a/b')
    assert repr(loaded) == repr(wanted)
    for name in ('matrix', 'column_major', 'swapped', 'names', 'raw', 'mask', 'empty'):
        assert loaded[name].dtype == wanted[name].dtype and loaded[name].flags.f_contiguous == wanted[name].flags.f_contiguous
        np.testing.assert_array_equal(loaded[name], PLAIN[name])


def test_numpy_2_wrote_the_file():
    """numpy 2 says numpy._core; both names are known whichever numpy reads."""
    written = pickle.dumps(PLAIN['matrix'], protocol=2)
    other = ('numpy._core', 'numpy.core') if b'numpy.core' in written else ('numpy.core', 'numpy._core')
    swapped = written.replace(other[1].encode(), other[0].encode())
    assert swapped != written
    np.testing.assert_array_equal(loads_pickle(swapped, 'a.pkl'), PLAIN['matrix'])


def evil(marker):
    return dict(
        system=Call(os.system, (f'touch {marker}',)), eval=Call(eval, (f'open({str(marker)!r}, "w")',)),
        getattr=Call(getattr, ('a', 'upper')), module=Call(__import__, ('os',)), open=Call(io.open, (str(marker), 'w')),
        in_array=np.array([Call(os.getcwd, ())], object), factory=defaultdict(os.getcwd), own=argparse.Namespace(a=1),
        reconstructor=Call(copyreg.__newobj__, (Call,)), numpy_load=Call(np.load, (str(marker),)),
        nested={'data_list': [{'a': [Call(os.getcwd, ())]}]})


@pytest.mark.parametrize('protocol', [0, 2, 4, 5])
@pytest.mark.parametrize('kind', evil(''))
def test_calls_are_refused_and_not_made(tmp_path, kind, protocol):
    marker, path = tmp_path / 'ran', tmp_path / 'evil.pkl'
    path.write_bytes(pickle.dumps(evil(marker)[kind], protocol=protocol))
    with pytest.raises(UnsafeFileError) as refused:
        load_pickle(path)
    said = str(refused.value)
    assert said.startswith(f'{path}: was refused') and '--trust-files' in said and 'MEMFUSION_TRUST_FILES=1' in said
    assert not marker.exists()


RAW = {
    'nested attribute': b'\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.',
    'attribute of a module': b'\x80\x04\x8c\x05numpy\x8c\x0cos.path.join\x93.',
    'INST': b'(S"true"\nios\nsystem\n.', 'OBJ': b'(cos\nsystem\nS"true"\no.',
    'codec': b'\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x04\x00\x00\x00zlib\x86R.',
    'codec, Python 2 name': b'\x80\x02c__builtin__\napply\n.',
}


@pytest.mark.parametrize('name', RAW)
def test_other_ways_to_name_something(name):
    with pytest.raises(UnsafeFileError, match='evil.pkl: was refused'):
        loads_pickle(RAW[name], 'evil.pkl')


def test_extension_codes_and_persistent_ids():
    copyreg.add_extension('os', 'system', 240)
    try:
        with pytest.raises(UnsafeFileError, match='os.system'):
            loads_pickle(b'\x80\x02\x82\xf0.', 'evil.pkl')
    finally:
        copyreg.remove_extension('os', 'system', 240)
    for data in (b'Pabc\n.', b'\x80\x04K\x01Q.'):
        with pytest.raises(DamagedFileError, match='evil.pkl is not a readable pickle.*persistent'):
            loads_pickle(data, 'evil.pkl')


def test_arrays_whose_type_lies_about_pointers_are_refused():
    for flags, fields in ((63, None), (0, {'a': (np.dtype('f8'), 0)})):
        dtype = Call(np.dtype, ('f8', False, True), (3, '<', None, fields and ('a',), fields, -1, -1, flags))
        for made in ([dtype], [Call(SCALAR, (dtype, b'12345678'))]):
            with pytest.raises(UnsafeFileError, match=r'numpy\.dtype'):
                loads_pickle(pickle.dumps(made, protocol=2), 'evil.pkl')


def test_bytes_are_never_taken_for_pointers():
    """Eight bytes as an object are the address of whatever the file's maker wants called."""
    objects = Call(np.dtype, ('O8', False, True), (3, '|', None, None, None, -1, -1, 0))
    for made in (Call(np.ndarray, ((1,), 'O', bytearray(8))), Call(np.ndarray, ((1,), 'f8', bytearray(8))),
                 Call(SCALAR, (objects, bytes(8))), objects, np.array([None], dtype=object)):
        with pytest.raises(UnsafeFileError, match=r'numpy\.(ndarray|dtype)'):
            loads_pickle(pickle.dumps([made], protocol=2), 'evil.pkl')


def test_records_are_refused():
    with pytest.raises(UnsafeFileError, match="numpy.dtype of 'V4'"):
        loads_pickle(pickle.dumps(np.zeros(2, dtype=[('a', 'f4')])), 'records.pkl')


def test_what_is_handed_out_cannot_be_changed():
    """BUILD would set attributes of whatever lies on the stack: here of OrderedDict, as (None, {'a': 1})."""
    with pytest.raises(DamagedFileError):
        loads_pickle(b'\x80\x02ccollections\nOrderedDict\nN}X\x01\x00\x00\x00aK\x01s\x86b.', 'evil.pkl')
    assert not hasattr(OrderedDict, 'a')


@pytest.mark.parametrize('data', [b'', pickle.dumps(PLAIN)[:300], b'these are my notes', b'\x80\x04c__builtin__\nbytearray\nI9'
                                  b'00000000000000000\n\x85R.'], ids=['empty', 'cut', 'text', 'bomb'])
def test_damaged_files_are_named(tmp_path, data):
    (tmp_path / 'bad.pkl').write_bytes(data)
    with pytest.raises(DamagedFileError, match=r'bad\.pkl is not a readable pickle \(.+\)') as error:
        load_pickle(tmp_path / 'bad.pkl')
    assert error.value.reason
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)  # as it comes back from a data worker


def test_trusted_files_load_with_whatever_they_hold(tmp_path, monkeypatch):
    monkeypatch.setenv(safe_pickle.TRUST_VARIABLE, '0')
    marker = tmp_path / 'ran'
    data = pickle.dumps(Call(os.mkdir, (str(marker),)))
    parser = argparse.ArgumentParser()
    safe_pickle.add_trust_option(parser)
    parser.parse_args([])
    with pytest.raises(UnsafeFileError):
        loads_pickle(data, 'evil.pkl')
    parser.parse_args(['--trust-files'])
    loads_pickle(data, 'evil.pkl')
    assert marker.exists(), 'the payload works, so its absence elsewhere means something'


@pytest.mark.parametrize('enabled', [True, False])
def test_garbage_is_collected_afterwards_as_before(enabled):
    was_enabled = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        loads_pickle(pickle.dumps(PLAIN), 'a.pkl')
        with pytest.raises(DamagedFileError):
            loads_pickle(b'', 'a.pkl')
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()


def test_the_reader_needs_no_other_library():
    import subprocess
    script = 'import sys, projects.common.safe_pickle; print([n for n in ("torch", "mmengine", "mmdet3d") if n in sys.modules])'
    repo = pathlib.Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, '-c', script], cwd=repo, capture_output=True, text=True).stdout.strip() == '[]'
