#!/usr/bin/env python
"""Writes the lock (every package with version and hash, for Linux on x86_64) and the list of the dependencies' licences.

pip resolves requirements/*.txt against its index and says what it would install in the Python that runs this; torch (whose
builds differ by index) and mmcv (which is compiled here) are left out. Run it with 3.11 and with 3.12 after a pin was changed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]
LEFT_OUT = ('torch', 'mmcv', 'pip')
PYTHON = f'{sys.version_info.major}.{sys.version_info.minor}'
MAIN = '3.11'
"""Whose packages' licences are listed."""
LICENCES = 'THIRD_PARTY.md'
_LONGEST = 80


def files() -> list[Path]:
    """Every requirements file but mmcv's and the locks."""
    return [path for path in sorted((REPO / 'requirements').glob('*.txt')) if not path.name.startswith(('mmcv', 'lock-'))]


def resolve() -> list[dict[str, Any]]:
    """pip's report of what it would install: one entry a package with its metadata and where it comes from."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.json'
        command = [sys.executable, '-m', 'pip', 'install', '--dry-run', '--ignore-installed', '--quiet', '--target', folder,
                   '--report', str(report), '-c', str(REPO / 'requirements/build.txt')]
        for path in files():
            command += ['-r', str(path)]
        subprocess.run(command, check=True)
        return json.loads(report.read_text())['install']


def lock_of(entries: list[dict[str, Any]]) -> str:
    """A requirements file with hashes, in alphabetical order."""
    lines = [f'# Linux on x86_64, Python {PYTHON}; written by tools/lock.py. torch and mmcv are not in it.',
             '# pip install --no-deps --require-hashes -r FILE']
    for name, entry in sorted((normal(entry['metadata']['name']), entry) for entry in entries):
        if name not in LEFT_OUT:
            digest = entry['download_info']['archive_info']['hashes']['sha256']
            lines.append(f'{name}=={entry["metadata"]["version"]} --hash=sha256:{digest}')
    return '\n'.join(lines) + '\n'


def licences_of(entries: list[dict[str, Any]]) -> str:
    """A table of the packages' licences, as their own metadata say."""
    lines = ['# Licences of the dependencies', '', 'What the packages say of themselves; written by `tools/lock.py`. MemFusion '
             'ships none of them.', 'torch and mmcv, which the lock leaves out, are BSD-3-Clause and Apache-2.0.', '',
             '| package | version | licence |', '|---|---|---|']
    for name, entry in sorted((normal(entry['metadata']['name']), entry) for entry in entries):
        if name not in LEFT_OUT:
            lines.append(f'| {name} | {entry["metadata"]["version"]} | {licence_of(entry["metadata"])} |')
    return '\n'.join(lines) + '\n'


def licence_of(metadata: dict[str, Any]) -> str:
    """The SPDX expression (of the installed package: older pips leave it out of their report), else the classifiers, else the
    first line of a short licence field."""
    classifiers = [line.rsplit(' :: ', 1)[1] for line in metadata.get('classifier', ()) if line.startswith('License :: ')
                   and line != 'License :: OSI Approved']
    short = (metadata.get('license') or '').strip().partition('\n')[0]
    said = (metadata.get('license_expression'), _installed_licence(metadata['name']), ', '.join(classifiers),
            short if len(short) <= _LONGEST else '', 'not said: see its page')
    return next(filter(None, said)).replace('|', '/')


def _installed_licence(name: str) -> str:
    try:
        found = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return ''
    return found['License-Expression'] if 'License-Expression' in found else ''


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r'[-_.]+', '-', name).lower()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--report', type=Path, help="pip's report, where it is there already")
    args = parser.parse_args()
    entries = resolve() if args.report is None else json.loads(args.report.read_text())['install']
    (REPO / f'requirements/lock-py{PYTHON.replace(".", "")}.txt').write_text(lock_of(entries))
    if PYTHON == MAIN:
        (REPO / LICENCES).write_text(licences_of(entries))
    print(f'{len(entries)} packages')


if __name__ == '__main__':
    main()
