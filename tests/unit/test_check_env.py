"""check_env says what is wrong and the command that mends it, with nothing but Python."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'check_env.py'


@pytest.fixture
def module():
    spec = importlib.util.spec_from_file_location('check_env', TOOL)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_runs_without_site_packages():
    done = subprocess.run([sys.executable, '-I', '-S', TOOL], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == ''
    assert 'PROBLEM  torch' in done.stdout and '  make env' in done.stdout


def test_system_check_names_one_apt_line(module, monkeypatch, capsys):
    monkeypatch.setattr(module.shutil, 'which', lambda name: None)
    monkeypatch.delenv('CXX', raising=False)

    def no_library(name):
        raise OSError(f'{name}: cannot open shared object file')

    monkeypatch.setattr(module.ctypes, 'CDLL', no_library)
    monkeypatch.setattr(module.sysconfig, 'get_paths', lambda: {'include': '/nowhere'})
    monkeypatch.setattr(module.importlib.util, 'find_spec', lambda name: None)
    assert module.main(['--system']) == 1
    version = f'{sys.version_info.major}.{sys.version_info.minor}'
    apt = [line.strip() for line in capsys.readouterr().out.splitlines() if 'apt-get' in line]
    assert apt == [f'sudo apt-get install -y git make g++ python{version}-venv python{version}-dev libgl1 libglib2.0-0']


def test_pins_come_from_the_requirements(module, tmp_path):
    (tmp_path / 'requirements.txt').write_text('# note\n-r more.txt\ntorch==2.13.0  # CPU\n')
    (tmp_path / 'more.txt').write_text('mmcv==2.1.0\nnumpy>=1\n')
    assert module.read_pins(tmp_path / 'requirements.txt') == {'mmcv': '2.1.0', 'torch': '2.13.0'}
    assert set(module.PACKAGES) <= set(module.read_pins(module.REPO / 'requirements.txt'))


@pytest.mark.parametrize(('name', 'distribution', 'version', 'pin', 'good'), [
    ('torch', 'torch', '2.1.2+cu121', '2.13.0', True),
    ('torch', 'torch', '2.13.1', '2.13.0', True),
    ('torch', 'torch', '2.0.1', '2.13.0', False),
    ('torch', 'torch', '2.14.0', '2.13.0', False),
    ('setuptools', 'setuptools', '81.0.0', '80.10.2', False),
    ('setuptools', 'setuptools', '65.5.0', '80.10.2', True),
    ('mmcv', 'mmcv', '2.2.0', '2.1.0', False),
    ('numpy', 'numpy', '1.26.4', '1.26.4', True),
    ('spconv-cu120', 'spconv-cu118', '2.3.6', '2.3.6', True),
])
def test_which_versions_will_do(module, name, distribution, version, pin, good):
    assert module.acceptable(name, distribution, version, pin) is good


@pytest.mark.parametrize(('error', 'expected'), [
    (ImportError('libGL.so.1: cannot open shared object file'), 'libgl1'),
    (ImportError('libgthread-2.0.so.0: cannot open shared object file'), 'libglib2.0-0'),
    (ModuleNotFoundError("No module named 'pkg_resources'"), 'setuptools<81'),
    (ImportError("No module named 'mmcv._ext'"), 'MMCV_WITH_OPS=1'),
])
def test_known_import_errors_have_a_remedy(module, capsys, error, expected):
    report = module.Report()
    module.explain_import(report, 'opencv-python', 'cv2', error, 'pip install this')
    assert report.finish() == 1
    out = capsys.readouterr().out
    assert expected in out.split('to mend it:')[1] and 'pip install this' not in out


def test_missing_and_wrong_packages(module, monkeypatch, capsys):
    report = module.Report()
    module.check_package(report, 'no-such-package', 'x', '1.0')
    monkeypatch.setattr(module, 'installed_version', lambda name: (name, '2.2.0'))
    module.check_package(report, 'mmdet', 'mmdet', '3.3.0')
    monkeypatch.setattr(module, 'installed_version', lambda name: (name, '3.3.0'))
    module.check_package(report, 'mmdet', 'json', '3.3.0')
    assert report.finish() == 1
    out = capsys.readouterr().out
    assert '"no-such-package==1.0"' in out and '2.2.0 is installed, 3.3.0 is the tested version' in out
    assert 'ok       mmdet' in out


ALL_EXPORT = {'onnxruntime': '1.32.0', 'onnx': '1.23.2', 'onnxscript': '0.7.2'}


@pytest.mark.parametrize(('number', 'there', 'code', 'said'), [
    (0, {}, 0, 'only projects/spatial_mllm needs it'),
    (0, {'transformers': '5.0.0'}, 1, '4.57.6 is the tested version'),
    (0, {'transformers': '4.57.6', 'torchvision': '0.20.0'}, 1, 'pip uninstall -y torchvision'),
    (0, {'transformers': '4.57.6'}, 0, 'ok       transformers'),
    (1, {}, 0, 'only tools/view.py needs it'),
    (1, {'rerun-sdk': '0.24.0'}, 1, '0.22.1 is the tested version'),
    (2, {}, 0, 'only tools/export.py needs it'),
    (2, {**ALL_EXPORT, 'onnx': '1.0.0'}, 1, '1.0.0 is installed, 1.23.2 is the tested version'),
    (2, {'onnxruntime': '1.32.0'}, 1, 'onnxscript         is not installed (wanted 0.7.2)'),
    (2, ALL_EXPORT, 0, 'ok       onnxscript'),
])
def test_extras_may_be_left_out_but_not_broken(module, monkeypatch, capsys, number, there, code, said):
    report = module.Report()
    file, needed_by, packages = module.EXTRAS[number]
    assert (module.REPO / 'requirements' / f'{file}.txt').is_file() and (module.REPO / needed_by).exists()
    monkeypatch.setattr(module, 'installed_version', lambda name: (name, there[name]) if name in there else None)
    pins = module.read_pins(module.REPO / 'requirements.txt')
    module.check_extra(report, file, needed_by, dict.fromkeys(packages, 'json'), pins)
    assert report.finish() == code and said in capsys.readouterr().out
