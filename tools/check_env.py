#!/usr/bin/env python
"""Says which versions are installed, what is missing or wrong, and what mends it. Needs only Python itself.

`--system` checks only what must be there before `make` can set up `.venv`.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import traceback
import warnings
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
TORCH_RANGE = ((2, 1), (2, 13))
SPCONV = 'spconv-cu120' if sys.version_info < (3, 12) else 'spconv-cu126'  # the first has no wheel for 3.12
PIP = f'{sys.executable} -m pip install'
BUILD_MMCV = f'MMCV_WITH_OPS=1 {PIP} --no-cache-dir --no-build-isolation --force-reinstall --no-deps mmcv==2.1.0'
SET_UP = 'make env    # everything in .venv, for CPU; docs/install.md has the GPU install'
# The package, and what to import to know that it works; the pin comes from the requirements files.
PACKAGES = {
    'torch': 'torch', 'numpy': 'numpy', 'setuptools': 'setuptools', 'opencv-python': 'cv2', 'mmengine': 'mmengine',
    'mmcv': 'mmcv.ops', 'mmdet': 'mmdet', 'mmdet3d': 'mmdet3d.models', SPCONV: 'spconv.pytorch',
    'nuscenes-devkit': 'nuscenes',
}
# Not needed by the rest: requirements file, what needs it, its packages with what to import.
EXTRAS = (
    ('spatial_mllm', 'projects/spatial_mllm', {'transformers': 'transformers.models.qwen2_5_vl.modeling_qwen2_5_vl'}),
    ('viewer', 'tools/view.py', {'rerun-sdk': 'rerun'}),
    ('export', 'tools/export.py', {'onnxruntime': 'onnxruntime', 'onnx': 'onnx', 'onnxscript': 'onnxscript'}),
)
# What any build of spconv 2 or of OpenCV does; the pinned one is what was tested.
ALTERNATIVES = {
    'opencv-python': ('opencv-python-headless', 'opencv-contrib-python'),
    SPCONV: ('spconv-cu126', 'spconv-cu121', 'spconv-cu120', 'spconv-cu118', 'spconv-cu117', 'spconv'),
}


class Report:
    """Prints one line per check and keeps what has to be done."""

    def __init__(self) -> None:
        self.fixes: list[str] = []
        self.apt: list[str] = []

    def good(self, name: str, text: str) -> None:
        print(f'ok       {name:<18} {text}')

    def bad(self, name: str, text: str, fix: str = '', apt: str = '') -> None:
        print(f'PROBLEM  {name:<18} {text}')
        if fix and fix not in self.fixes:
            self.fixes.append(fix)
        if apt and apt not in self.apt:
            self.apt.append(apt)

    def finish(self) -> int:
        """Prints the commands; returns the exit code."""
        commands = ([f'sudo apt-get install -y {" ".join(self.apt)}'] if self.apt else []) + self.fixes
        if not commands:
            print('everything is in place')
            return 0
        print('\nto mend it:')
        for command in commands:
            print(f'  {command}')
        return 1


# -- the system -------------------------------------------------------------------------------------------------------
def check_system(report: Report) -> None:
    """git, make, a C++ compiler, python3.11 with venv and headers, and the two libraries OpenCV needs."""
    for program, apt in (('git', 'git'), ('make', 'make')):
        path = shutil.which(program)
        if path:
            report.good(program, path)
        else:
            report.bad(program, 'is missing', apt=apt)
    compiler = os.environ.get('CXX') or next(filter(shutil.which, ('c++', 'g++', 'clang++')), None)
    if compiler and shutil.which(compiler):
        report.good('C++ compiler', compiler)
    else:
        report.bad('C++ compiler', 'is missing (mmcv compiles its ops)', apt='g++')
    check_python(report)
    for library, apt in (('libGL.so.1', 'libgl1'), ('libgthread-2.0.so.0', 'libglib2.0-0')):
        try:
            ctypes.CDLL(library)
            report.good(library, 'found')
        except OSError as error:
            report.bad(library, f'cannot be loaded: {error}', apt=apt)


def check_python(report: Report) -> None:
    """This interpreter: its version, venv and headers."""
    version = f'{sys.version_info.major}.{sys.version_info.minor}'
    if sys.version_info[:2] in ((3, 10), (3, 11), (3, 12)):
        report.good('python', platform.python_version())
    else:
        report.bad('python', f'{platform.python_version()}: use 3.11 (3.10 and 3.12 are expected to work)', apt='python3.11')
        version = '3.11'
    if not all(importlib.util.find_spec(name) for name in ('venv', 'ensurepip')):
        report.bad('python venv', 'venv or ensurepip is missing', apt=f'python{version}-venv')
    header = Path(sysconfig.get_paths()['include']) / 'Python.h'
    if header.is_file():
        report.good('python headers', str(header))
    else:
        report.bad('python headers', f'{header} is missing', apt=f'python{version}-dev')


# -- the packages -----------------------------------------------------------------------------------------------------
def read_pins(file: Path) -> dict[str, str]:
    """{package: version} of a requirements file and of those it includes."""
    pins: dict[str, str] = {}
    if not file.is_file():
        return pins
    for line in file.read_text().splitlines():
        line = line.split('#')[0].strip()
        if line.startswith('-r '):
            pins.update(read_pins(file.parent / line[3:].strip()))
        elif '==' in line:
            name, version = line.split('==')
            pins[name.strip().lower()] = version.split(';')[0].strip()
    return pins


def installed_version(name: str) -> tuple[str, str] | None:
    """(distribution, version) of the package or of another build of it."""
    for candidate in (name, *ALTERNATIVES.get(name, ())):
        try:
            return candidate, importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def check_package(report: Report, name: str, module: str, pin: str | None) -> None:
    """Is it installed, at the tested version, and can it be imported?"""
    wanted = f'{name}=={pin}' if pin else name
    fix = BUILD_MMCV if name == 'mmcv' else f'{PIP} "{wanted}"'
    found = installed_version(name)
    if found is None:
        report.bad(name, f'is not installed (wanted {pin})', fix)
        return
    distribution, version = found
    if not acceptable(name, distribution, version, pin):
        report.bad(name, f'{version} is installed, {pin} is the tested version', fix)
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            importlib.import_module(module)
    except Exception as error:  # a broken package may raise anything while it is imported
        explain_import(report, name, module, error, fix)
        return
    report.good(name, version if distribution == name else f'{version} ({distribution})')


def acceptable(name: str, distribution: str, version: str, pin: str | None) -> bool:
    """Whether a version will do: torch within its range, another build of OpenCV or spconv, otherwise the pin."""
    number = tuple(int(part) for part in re.findall(r'\d+', version)[:3])
    if name == 'torch':
        return TORCH_RANGE[0] <= number[:2] <= TORCH_RANGE[1]
    if name == 'setuptools':
        return number[0] < 81  # mmcv and mmengine import pkg_resources, which 81 removed
    if pin is None or distribution != name:
        return True
    return version.split('+')[0] == pin


def explain_import(report: Report, name: str, module: str, error: Exception, fix: str) -> None:
    """What an import error means; the three that people meet have their own remedy."""
    text = ' '.join(str(error).split())
    apt = ''
    if 'libGL' in text:
        fix, apt = '', 'libgl1'
    elif 'libgthread' in text or 'libglib' in text:
        fix, apt = '', 'libglib2.0-0'
    elif name == 'mmcv' or 'mmcv._ext' in text:
        text += " (mmcv's ops are missing or were compiled for another torch)"
        fix = BUILD_MMCV
    elif 'pkg_resources' in text:
        fix = f'{PIP} "setuptools<81"'
    report.bad(name, f'import {module} fails: {type(error).__name__}: {text}', fix, apt)


def check_packages(report: Report) -> None:
    """Everything of PACKAGES, CUDA, and the project itself."""
    if installed_version('torch') is None:
        report.bad('torch', f'is not installed for {sys.executable}: nothing else can be checked', SET_UP)
        return
    pins = read_pins(REPO / 'requirements.txt')
    if not pins:
        report.bad('requirements.txt', f'is missing or empty in {REPO}', 'git checkout requirements.txt requirements')
    for name, module in PACKAGES.items():
        check_package(report, name, module, pins.get(name))
    for file, needed_by, packages in EXTRAS:
        check_extra(report, file, needed_by, packages, pins)
    print(f'         {"CUDA":<18} {cuda_text()}')
    try:
        spec = importlib.util.find_spec('projects.memfusion')
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        report.bad('memfusion', 'projects.memfusion cannot be imported', f'{PIP} --no-deps -e {REPO}')
    else:
        report.good('memfusion', str(spec.origin))


def check_extra(report: Report, file: str, needed_by: str, packages: dict[str, str], pins: dict[str, str]) -> None:
    """One of EXTRAS: where a part of it is there, all of it must be, and work."""
    if not any(installed_version(name) for name in packages):
        folder = REPO / 'requirements'
        fix = f'{PIP} -r {folder / file}.txt -c {folder / "build.txt"}'  # which holds numpy
        print(f'         {next(iter(packages)):<18} is not installed; only {needed_by} needs it: {fix}')
        return
    for name, module in packages.items():
        if name == 'transformers' and installed_version('torchvision') is not None:
            report.bad('torchvision', "must not be there: beside a CPU torch its wheel breaks transformers' import of "
                       'Qwen2.5-VL, and nothing here needs it', f'{sys.executable} -m pip uninstall -y torchvision')
        else:
            check_package(report, name, module, pins.get(name))


def cuda_text() -> str:
    """Which CUDA torch was built for and whether a device is there; asked in another process, because it may crash."""
    code = ("import torch; print(torch.version.cuda, torch.cuda.is_available() and torch.cuda.get_device_name())")
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    built, _, device = done.stdout.strip().partition(' ')
    if done.returncode or not built:
        return 'cannot be asked'
    if built == 'None':
        return 'torch is a CPU build'
    return f'torch is built for {built}; device: {device if device != "False" else "none here"}'


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--system', action='store_true', help='only what set-up needs to begin')
    args = parser.parse_args(argv)
    report = Report()
    if args.system:
        check_system(report)
        return report.finish()
    print(f'         {"platform":<18} {platform.platform()}')
    check_python(report)
    check_packages(report)
    return report.finish()


if __name__ == '__main__':
    try:
        code = main()
    except Exception:  # Python's own exit code, 1, means here that something is missing
        traceback.print_exc()
        code = 3
    sys.exit(code)
