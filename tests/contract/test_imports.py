"""The import rules of the layout: every arrow and every room; blocks run without mmdet3d's models."""

import ast
import importlib.metadata
import re
import subprocess
import sys

import pytest
from sources import FILES, PROJECTS, REPO, TOOLS, imports_of, nodes_of, room, room_of, shown, text_of

PACKAGE = PROJECTS / 'memfusion'
STAGES = {'data', 'images', 'lidar', 'fusion', 'memory', 'heads', 'metrics', 'queries', 'forecasting', 'visualization'}
PROGRAMS = {'calibration_doctor', 'studies', 'benchmarks', 'demos', 'convert', 'sample_frames'}
# Whoever stands in a line imports from the lines above it alone, so neighbours never import each other. `visualization` is a
# stage: it draws what the contracts hold. Hooks stand beside the detectors: both tie stages together, each at its own events.
# `build` is a file: it makes our own types out of a registry's table.
ORDER = [{'common'}, {'geometry'}, {'encodings'}, {'structures'}, {'losses', 'build'}, STAGES, {'detectors', 'hooks'},
         {'runtime'}, {'reports'}, PROGRAMS]
APART = dict(synthetic_nuscenes=set(), spatial_mllm={'common', 'geometry', 'encodings'},
             export={'geometry', 'structures', 'heads', 'runtime', 'demos'})
"""Beside the others, with all that they may import of ours; nobody imports them but tools."""
RUNTIME = {'allocator', 'blame', 'checkpoint', 'errors', 'fuse', 'launch', 'options', 'plain_pickle', 'resume', 'run_checks',
           'runner', 'sharded'}
"""What command lines share, and nothing else. It was an attic once: what a program does lies with the program."""


def test_every_arrow():
    rank = {name: number for number, rooms in enumerate(ORDER) for name in rooms}
    wrong = []
    for path in FILES:
        own = room(path)
        others = {name for name in map(room_of, imports_of(path)) if name and name != own}
        allowed = APART.get(own, {name for name in rank if rank[name] < rank.get(own, 0)})
        wrong += [f'{shown(path)} imports {name}' for name in sorted(others - allowed - {'__init__'})]
    assert wrong == []


def test_every_room():
    def inside(folder):
        return {path.name.removesuffix('.py') for path in folder.iterdir() if path.name not in ('__pycache__', '__init__.py')}

    assert inside(PROJECTS) <= {'common', 'geometry', 'encodings', 'memfusion', 'reports', *PROGRAMS, *APART}
    assert inside(PACKAGE) <= set().union(*ORDER[3:-2]) | {'register', 'README.md'}
    assert inside(PACKAGE / 'runtime') <= RUNTIME
    tested = {path.name for path in (REPO / 'tests' / 'unit').iterdir() if path.is_dir() and path.name != '__pycache__'}
    assert tested <= set().union(*ORDER) | set(APART)


COMMON = [path for path in FILES if room(path) == 'common']


@pytest.mark.parametrize('path', COMMON, ids=lambda p: p.name)
def test_common_stands_below_everything_and_needs_numpy_and_torch_only(path):
    nodes = nodes_of(path)
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {'.' * node.level + (node.module or '') for node in nodes if isinstance(node, ast.ImportFrom)}
    ours = {name for name in found if name.startswith(('.', 'projects'))}
    assert {name.split('.')[0] for name in found - ours} <= {*sys.stdlib_module_names, 'numpy', 'torch'}


def test_pickles_are_read_in_one_place():
    """pickle.load(s) and torch.load run what they read: only the safe reader, and checkpoint.py behind it, may call them."""
    allowed = {'common/safe_pickle.py', 'common/safe_tensors.py', 'memfusion/runtime/checkpoint.py',
               'benchmarks/infos.py'}
    raw = re.compile(r'\bc?[pP]ickle\.(loads?|Unpickler)\b|\btorch\.load\(|allow_pickle=True|\bjoblib\.load|\bdill\b')
    found = {str(path.relative_to(PROJECTS)) for path in FILES if raw.search(text_of(path))}
    found |= {path.name for path in TOOLS if raw.search(text_of(path))}
    assert found - allowed == {'memfusion/memory/xmem/checkpoint.py'}  # weights only
    assert 'weights_only=not files_are_trusted()' in (PACKAGE / 'memory/xmem/checkpoint.py').read_text()


def test_blocks_do_without_compiled_ops():
    blocks = {'geometry', 'encodings', 'fusion', 'images', 'memory', 'queries'}
    allowed = re.compile(r'(torch|numpy|mmengine|mmcv\.cnn|mmdet3d\.registry|projects)(\.|$)')
    wrong = [f'{shown(path)} imports {name}' for path in FILES if room(path) in blocks for name in sorted(imports_of(path))
             if name.split('.')[0] not in sys.stdlib_module_names and not allowed.match(name)]
    assert wrong == []


def test_blocks_import_where_mmcv_has_no_compiled_ops():
    script = ('import sys; sys.modules["mmcv._ext"] = None; sys.modules["mmcv.ops"] = None\n'
              'import projects.memfusion.memory, projects.memfusion.fusion, projects.memfusion.images, projects.geometry\n'
              'import projects.memfusion.structures')
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', script], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_package_that_is_imported_is_pinned():
    pins = {match.group(1).lower() for path in (REPO / 'requirements.txt', *(REPO / 'requirements').glob('*.txt'))
            for line in path.read_text().splitlines() if (match := re.match(r'([\w-]+)==', line))}
    used = {name.split('.')[0] for path in (*FILES, *TOOLS) for node in nodes_of(path)
            for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else
                         [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else [])}
    providers = importlib.metadata.packages_distributions()
    missing = [name for name in sorted(used - set(sys.stdlib_module_names) - {'projects'})
               if not pins & {provider.lower() for provider in providers.get(name, [])}]
    assert 'torch' in used and missing == []


def test_tools_are_thin_and_nothing_imports_them():
    assert [shown(path) for path in FILES if any(name.split('.')[0] == 'tools' for name in imports_of(path))] == []
    alone = 'check_env.py'  # it runs before anything is installed
    assert [path.name for path in TOOLS if path.name != alone and len(text_of(path).splitlines()) > 150] == []
