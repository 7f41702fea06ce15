"""Every command of README and docs: its tool takes its arguments, what it names is there, and a page says who runs it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

from sources import REPO

DOCUMENTS = (REPO / 'README.md', REPO / 'CONTRIBUTING.md', *sorted((REPO / 'docs').glob('*.md')))
TABLE = REPO / 'docs' / 'commands.md'
STARTS = ('python ', 'python3', 'tools/', '.venv/bin/', 'make ', 'pip ', 'source ', 'sudo ', 'mkdir ', 'MMCV_', 'bash ')
NUMBERS = {'I', 'N', 'X', 'Y', 'X_M', 'Y_M', 'GPUS'}
FOREIGN = {'$MMDET3D/train.py', '$MMDET3D/test.py'}
"""mmdet3d's own tools: docs/mmdet3d_tools.md has its own test."""
TO_BE_WRITTEN = re.compile(r'my-rig|xmem-gate-a05-m8|configs/(?:RUN|query/CONFIG)\.py')
"""Configs that the reader writes or chooses."""

# Runs every command line up to where its arguments are read; who runs tools is told which are refused.
SCRIPT = """
import argparse, contextlib, io, json, os, runpy, sys

class Read(BaseException):
    pass

def stopping(original):
    def parse(*args, **kwargs):
        original(*args, **kwargs)
        raise Read
    return parse

for name in ('parse_args', 'parse_intermixed_args'):
    setattr(argparse.ArgumentParser, name, stopping(getattr(argparse.ArgumentParser, name)))
for words in json.load(sys.stdin):
    os.chdir(sys.argv[1] if len(sys.argv) > 1 else '.')
    kept, sys.argv, said = sys.argv, words, io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            runpy.run_path(words[0], run_name='__main__')
        print('no arguments are read:', words)
    except Read:
        pass
    except SystemExit:
        print(words, said.getvalue().splitlines()[-1:])
    sys.argv = kept
"""


def commands():
    """(document, words) of every command line; placeholders are as they are written."""
    found = []
    for document in DOCUMENTS:
        text = re.sub(r'\\\n\s*', '', document.read_text())
        for line in text.splitlines():
            if line.startswith('    ') and line.strip().startswith(STARTS):
                for part in line.split('&&'):
                    bare = re.sub(r'\[|\]|\.\.\.|arguments of \w+\.py', ' ', part.replace('$CONFIG', 'CONFIG'))
                    found.append((document.name, shlex.split(re.sub(r'(\S+?)\s*\|\s*-[^\n]*', r'\1', bare), comments=True)))
    return [(name, words) for name, words in found if words]


def of_tools():
    """(document, tool and arguments) of our own Python tools."""
    found = []
    for name, words in commands():
        tool = next((word for word in words[:3] if word.startswith('tools/')), None)
        if tool is not None:
            rest = words[words.index(tool) + 1:]
            found.append((name, [tool, *('1' if word in NUMBERS else word.partition('|')[0] for word in rest)]))
    return found


def test_every_tool_takes_the_arguments_that_are_documented():
    given = [words for _, words in of_tools() if words[0].endswith('.py')]
    assert len(given) > 40
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', SCRIPT, REPO], input=json.dumps(given), cwd=REPO,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == ''


def test_every_file_and_target_that_a_command_names_is_there():
    targets = re.search(r'^\.PHONY: (.*)$', (REPO / 'Makefile').read_text(), re.M)[1].split()
    wrong = []
    for name, words in commands():
        if words[0] == 'make':
            wrong += [(name, word) for word in words[1:] if '=' not in word and word not in targets]
        named = [word for word in words if re.match(r'(configs|tools|tests|requirements)/\S+\.(py|sh|txt)$', word)]
        wrong += [(name, word) for word in named if not TO_BE_WRITTEN.search(word) and not (REPO / word).is_file()]
    assert wrong == []


def test_a_page_says_who_runs_each_command():
    rows = dict(re.findall(r'^\| `(tools/[\w.]+|make \w+)` \| (.+)$', TABLE.read_text(), re.M))
    documented = {words[0] for _, words in of_tools()} | {
        f'make {words[1]}' for _, words in commands() if words[0] == 'make' and '=' not in words[1]}
    assert documented <= rows.keys() and all((REPO / row).exists() for row in rows if row.startswith('tools/'))
    for row, said in rows.items():
        tests = re.findall(r'`(tests/\S+\.py)`', said)
        assert tests or re.search('GPU|nuScenes|hours|network|checkpoint', said), row
        assert [test for test in tests if not (REPO / test).is_file()] == [], row
        whole = re.findall(r'`(tests/\S+\.py)`', said.partition('its parts')[0])
        if row.startswith('tools/'):
            assert [test for test in whole if row.removeprefix('tools/') not in (REPO / test).read_text()
                    and row.removeprefix('tools/').removesuffix('.py') not in (REPO / test).read_text()] == [], row
