"""The import rules of the layout: stages do not import each other; blocks run without mmdet3d's models."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / 'projects' / 'memfusion'
STAGES = ('data', 'lidar', 'camera', 'fusion', 'memory', 'heads', 'metrics')


def imports(path: Path) -> set[str]:
    """Absolute dotted names a file imports."""
    package = path.relative_to(REPO).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(package[:len(package) - node.level + 1]) if node.level else ''
            module = '.'.join(part for part in (base, node.module) if part)
            found |= {module} | {f'{module}.{alias.name}' for alias in node.names}
    return found


COMMON = sorted((REPO / 'projects' / 'common').rglob('*.py'))


@pytest.mark.parametrize('path', COMMON, ids=lambda p: p.name)
def test_common_stands_below_everything_and_needs_numpy_and_torch_only(path):
    nodes = list(ast.walk(ast.parse(path.read_text())))
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {'.' * node.level + (node.module or '') for node in nodes if isinstance(node, ast.ImportFrom)}
    ours = {name for name in found if name.startswith(('.', 'projects'))}
    assert ours <= {'projects.common'} | {f'projects.common.{other.stem}' for other in COMMON}
    assert {name.split('.')[0] for name in found - ours} <= {*sys.stdlib_module_names, 'numpy', 'torch'}


def test_pickles_are_read_in_one_place():
    """pickle.load(s) and torch.load run what they read: only the safe reader, and checkpoint.py behind it, may call them."""
    allowed = {'common/safe_pickle.py', 'common/safe_tensors.py', 'memfusion/runtime/checkpoint.py',
               'memfusion/benchmarks/infos.py'}
    raw = re.compile(r'\bc?[pP]ickle\.(loads?|Unpickler)\b|\btorch\.load\(|allow_pickle=True|\bjoblib\.load|\bdill\b')
    found = {str(path.relative_to(PACKAGE.parent)) for path in PACKAGE.parent.rglob('*.py') if raw.search(path.read_text())}
    found |= {path.name for path in (REPO / 'tools').glob('*.py') if raw.search(path.read_text())}
    assert found - allowed == {'memfusion/memory/xmem/checkpoint.py'}  # weights only
    assert 'weights_only=not files_are_trusted()' in (PACKAGE / 'memory/xmem/checkpoint.py').read_text()


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (REPO / 'projects' / folder).rglob('*.py'))


@pytest.mark.parametrize('path', files(*(f'memfusion/{stage}' for stage in STAGES)), ids=lambda p: str(p.relative_to(REPO)))
def test_stages_do_not_import_each_other(path):
    own = path.relative_to(PACKAGE).parts[0]
    others = {m.group(1) for name in imports(path) if (m := re.match(r'projects\.memfusion\.(\w+)', name))}
    assert others & (set(STAGES) - {own}) == set()
    assert 'detectors' not in others


@pytest.mark.parametrize('path', files('geometry', 'memfusion/structures'), ids=lambda p: str(p.relative_to(REPO)))
def test_contracts_and_geometry_stand_below_everything(path):
    others = {m.group(1) for name in imports(path) if (m := re.match(r'projects\.memfusion\.(\w+)', name))}
    assert others <= {'structures'}


@pytest.mark.parametrize('path', files('geometry', 'memfusion/fusion', 'memfusion/memory'),
                         ids=lambda p: str(p.relative_to(REPO)))
def test_blocks_do_without_compiled_ops(path):
    allowed = ('torch', 'mmengine', 'mmcv.cnn', 'mmdet3d.registry', 'projects.memfusion', '__future__', 'math', 'dataclasses',
               'collections', 'typing', 'numpy', 'functools', 'itertools', 'contextlib', 'threading', 'weakref',
               'projects.common', 'projects.geometry', 'projects.encodings')
    assert [name for name in imports(path) if not name.startswith(allowed)] == []


def test_blocks_import_where_mmcv_has_no_compiled_ops():
    script = ('import sys; sys.modules["mmcv._ext"] = None; sys.modules["mmcv.ops"] = None\n'
              'import projects.memfusion.memory, projects.memfusion.fusion, projects.geometry\n'
              'import projects.memfusion.structures')
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', script], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_package_that_is_imported_is_pinned():
    pins = {match.group(1).lower() for path in (REPO / 'requirements.txt', *(REPO / 'requirements').glob('*.txt'))
            for line in path.read_text().splitlines() if (match := re.match(r'([\w-]+)==', line))}
    sources = [*PACKAGE.parent.rglob('*.py'), *(REPO / 'tools').glob('*.py')]
    used = {name.split('.')[0] for path in sources for node in ast.walk(ast.parse(path.read_text()))
            for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else
                         [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else [])}
    providers = importlib.metadata.packages_distributions()
    missing = [name for name in sorted(used - set(sys.stdlib_module_names) - {'projects'})
               if not pins & {provider.lower() for provider in providers.get(name, [])}]
    assert 'torch' in used and missing == []


def test_tools_are_thin_and_nothing_imports_them():
    for path in PACKAGE.rglob('*.py'):
        assert not any(name == 'tools' or name.startswith('tools.') for name in imports(path)), path
    for path in (REPO / 'tools').glob('*.py'):
        if path.name != 'check_env.py':  # stands alone: it runs before anything is installed
            assert len(path.read_text().splitlines()) <= 150, path
