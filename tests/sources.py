"""Our own source files as the contract tests read them: parsed once, with the rooms of the layout they lie in."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PROJECTS = REPO / 'projects'
FILES = tuple(sorted(PROJECTS.rglob('*.py')))
TOOLS = tuple(sorted((REPO / 'tools').glob('*.py')))


@functools.cache
def text_of(path: Path) -> str:
    return path.read_text()


@functools.cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """The module and everything in it."""
    return tuple(ast.walk(ast.parse(text_of(path))))


@functools.cache
def imports_of(path: Path) -> frozenset[str]:
    """Absolute dotted names that a file imports, anywhere in it."""
    package = path.relative_to(REPO).parts[:-1]
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(package[:len(package) - node.level + 1]) if node.level else ''
            module = '.'.join(part for part in (base, node.module) if part)
            found |= {module} | {f'{module}.{alias.name}' for alias in node.names}
    return frozenset(found)


def room_of(name: str) -> str | None:
    """The room that a dotted name of ours lies in: `memory`, `geometry`, ...; None for another's, '' for a namespace alone."""
    parts = name.split('.')
    if parts[0] != 'projects':
        return None
    parts = parts[2:] if parts[1:2] == ['memfusion'] else parts[1:]
    return {'register': 'runtime'}.get(parts[0], parts[0]) if parts else ''


def room(path: Path) -> str:
    """The room that a file of `projects` lies in."""
    return room_of('.'.join(path.relative_to(REPO).with_suffix('').parts)) or ''


def shown(path: Path) -> str:
    """The path from the repository's root, for messages."""
    return str(path.relative_to(REPO))
