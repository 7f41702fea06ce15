"""Release: one version everywhere, the lock holds the pins, sdist and wheel are whole and install into a clean environment."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml

LEFT_OUT = {'torch', 'mmcv', 'pip'}


def pins(*files):
    found = {}
    for file in files:
        for line in file.read_text().splitlines():
            if match := re.match(r'([\w.-]+)==([^\s;]+)(?:; python_version (<|>=) "3.12")?', line):
                found[match[1].lower(), match[3] or ''] = match[2]
    return found


def test_one_version_everywhere(repo):
    version = re.search(r'^version = "(.+)"', (repo / 'pyproject.toml').read_text(), re.M)[1]
    citation = yaml.safe_load((repo / 'CITATION.cff').read_text())
    assert citation['version'] == version and citation['cff-version'] == '1.2.0' and citation['authors']
    assert re.search(r'^## \[([\d.]+)\]', (repo / 'CHANGELOG.md').read_text(), re.M)[1] == version


@pytest.mark.parametrize('python, marker', [('311', '<'), ('312', '>=')])
def test_the_lock_holds_every_pin_with_a_hash(repo, python, marker):
    lines = [line for line in (repo / f'requirements/lock-py{python}.txt').read_text().splitlines() if not line.startswith('#')]
    locked = dict(re.fullmatch(r'([\w.-]+)==(\S+) --hash=sha256:[0-9a-f]{64}', line).groups() for line in lines)
    files = [path for path in (repo / 'requirements').glob('*.txt') if not path.name.startswith(('mmcv', 'lock-'))]
    wanted = {name: version for (name, when), version in pins(*files).items() if when in ('', marker)}
    stale = {name: version for name, version in wanted.items() if locked.get(re.sub('[-_.]+', '-', name)) != version}
    assert stale == {}, 'run tools/lock.py with this Python'
    assert not LEFT_OUT & set(locked) and len(locked) > 100


def test_every_locked_package_has_a_licence(repo):
    rows = re.findall(r'^\| ([\w.-]+) \| (\S+) \| (.+) \|$', (repo / 'THIRD_PARTY.md').read_text(), re.M)
    listed = {name: version for name, version, licence in rows if licence.strip()}
    locked = re.findall(r'^([\w.-]+)==(\S+)', (repo / 'requirements/lock-py311.txt').read_text(), re.M)
    assert dict(locked).items() <= listed.items()


def run(*command, cwd=None):
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope='module')
def wheel(repo, tmp_path_factory):
    """Built from the unpacked sdist, so that what the sdist lacks the wheel lacks too. No network, no isolation."""
    source, out = tmp_path_factory.mktemp('source') / 'repo', tmp_path_factory.mktemp('dist')
    source.mkdir()
    for name in ('projects', 'configs', 'tools', 'requirements'):
        shutil.copytree(repo / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    for path in repo.iterdir():
        if path.is_file() and not path.name.startswith('.'):
            shutil.copy(path, source)
    build = 'import sys; from setuptools import build_meta as b; getattr(b, "build_" + sys.argv[1])(sys.argv[2])'
    run(sys.executable, '-W', 'ignore', '-c', build, 'sdist', out, cwd=source)
    (sdist,) = out.glob('memfusion-*.tar.gz')
    shutil.unpack_archive(sdist, out, filter='data')
    run(sys.executable, '-W', 'ignore', '-c', build, 'wheel', out, cwd=out / sdist.name.removesuffix('.tar.gz'))
    return next(out.glob('*.whl'))


def test_the_wheel_has_configs_tools_and_templates_and_no_tests(wheel, repo):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ('configs', 'tools'):
        ours = {f'projects/.mim/{path.relative_to(repo)}' for path in (repo / folder).rglob('*')
                if path.suffix in ('.py', '.sh')}
        assert ours and ours <= names
    code = {str(path.relative_to(repo)) for path in (repo / 'projects').rglob('*')
            if path.suffix in ('.py', '.html', '.js', '.css')}
    assert code <= names
    assert not [name for name in names if name.startswith('tests') or '__pycache__' in name]


def test_it_installs_into_a_clean_environment_and_reads_its_configs(wheel, tmp_path):
    run(sys.executable, '-m', 'venv', '--without-pip', tmp_path / 'venv')
    python = tmp_path / 'venv' / 'bin' / 'python'
    run(sys.executable, '-m', 'pip', '--python', python, 'install', '--no-deps', '--no-index', '--quiet', wheel)
    site = next((tmp_path / 'venv' / 'lib').glob('python3*/site-packages'))
    (site / 'dependencies.pth').write_text(sysconfig.get_paths()['purelib'])  # a plain path: its own .pth files stay unread
    script = ('from importlib.metadata import version; from mmengine.config import Config; import projects.common.threads as t;'
              'from pathlib import Path; mim = Path(t.__file__).parents[1] / ".mim";'
              'cfg = Config.fromfile(str(mim / "configs/demo/keyframe_pillar04.py"), import_custom_modules=False);'
              'print(t.__file__, version("memfusion"), cfg.model.type)')
    file, version, kind = run(python, '-I', '-W', 'ignore', '-c', script, cwd=tmp_path).split()
    assert Path(file).is_relative_to(site) and version in wheel.name and kind == 'TemporalFusionDetector'
    said = run(python, '-W', 'ignore', site / 'projects/.mim/tools/create_synthetic_nuscenes.py', '--help', cwd=tmp_path)
    assert '--preset' in said
