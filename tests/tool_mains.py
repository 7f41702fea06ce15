"""Command lines in this process: a tool's `main`, without a start of Python."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sources import REPO


def main_of(tool: str) -> Callable[[Sequence[str | Path]], Any]:
    """main_of('view')([DATA, '--out', FILE]); bad input is raised as UserError, as `run_cli` is handed it."""
    spec = importlib.util.spec_from_file_location(tool, REPO / 'tools' / f'{tool}.py')
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda arguments: module.main([*map(str, arguments)])
