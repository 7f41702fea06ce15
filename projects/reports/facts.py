"""Report. In: the running process, the repository. Out: the exact command, the state of git, the environment, as words."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ('memfusion', 'torch', 'mmcv', 'mmengine', 'mmdet', 'mmdet3d', 'spconv-cu120', 'spconv-cu126', 'nuscenes-devkit',
            'numpy', 'transformers')
VARIABLES = ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'MKL_NUM_THREADS', 'CUDA_VISIBLE_DEVICES', 'ATEN_CPU_CAPABILITY',
             'ONEDNN_MAX_CPU_ISA')
"""What changes speed or the last digits; nothing else of the environment is told."""
_MOST_FILES = 40


def run_facts(repo: Path) -> dict[str, dict[str, str]]:
    """{'Command': ..., 'Git': ..., 'Environment': ...}, each with names and values."""
    return {'Command': command_facts(), 'Git': git_facts(repo), 'Environment': environment_facts()}


def command_facts() -> dict[str, str]:
    """The command line as a shell takes it, the folder it was given in, when it ended."""
    return {'command': shlex.join(['python', *sys.argv]), 'folder': os.getcwd(),
            'finished': datetime.now(timezone.utc).isoformat(timespec='seconds')}


def git_facts(repo: Path) -> dict[str, str]:
    """Commit, branch and what differs from the commit; one line that says so where there is no git checkout."""
    try:
        commit = _git(repo, 'log', '-1', '--format=%H %cI %s')
        branch = _git(repo, 'rev-parse', '--abbrev-ref', 'HEAD')
        changed = _git(repo, 'status', '--porcelain').splitlines()
    except (OSError, subprocess.CalledProcessError):
        return {'commit': f'none: {repo} is not a git checkout'}
    sha, date, subject = commit.split(' ', 2)
    more = [f'and {len(changed) - _MOST_FILES} more'] if len(changed) > _MOST_FILES else []
    return {'commit': sha, 'date': date, 'subject': subject, 'branch': branch,
            'changed since': '\n'.join([*changed[:_MOST_FILES], *more]) or 'nothing'}


def environment_facts() -> dict[str, str]:
    """Python, packages that results hang on, processor, GPUs, threads, and those of VARIABLES that are set."""
    found = {'python': platform.python_version(), 'system': platform.platform()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    found['processor'] = f'{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads'
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    found['GPU'] = ', '.join(gpus) or 'none'
    return {**found, **{name: os.environ[name] for name in VARIABLES if name in os.environ}}


def _git(repo: Path, *arguments: str) -> str:
    done = subprocess.run(['git', '-C', str(repo), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.rstrip()


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    named = (line.partition(':')[2].strip() for line in lines if line.startswith('model name'))
    return next(named, platform.machine())
