"""Report of a study. In: its tables as Markdown, a scene where there is one. Out: report.html with the facts of this run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .config_changes import config_changes
from .facts import run_facts
from .page import NO_SCENE, Report, write_report
from .player import PlayedScene

REPO = Path(__file__).resolve().parents[2]
_NONE: Mapping[str, Any] = MappingProxyType({})


def report_study(path: Path, title: str, text: str, text_folder: Path | None = None, config: str = '',
                 options: Mapping[str, Any] = _NONE, scene: tuple[PlayedScene | None, str] = (None, NO_SCENE),
                 pictures: Mapping[str, Path] = _NONE) -> Path:
    """Writes a study's page and says so on the screen; returns its path.

    Args:
        path: of the page.
        title: heading.
        text: Markdown with the tables.
        text_folder: where the pictures lie that the text names.
        config: of the row that the scene shows, from the repository's root, or its whole path.
        options: of the command line, on the config.
        scene: what the player shows, or None and why there is none.
        pictures: {caption: file} beside those of the text.

    Raises:
        UserError: naming a config or a picture that cannot be read.
    """
    changes = config_changes(REPO / config, options) if config else []
    named = str(Path(config).relative_to(REPO)) if Path(config).is_relative_to(REPO) else config
    shown, why = scene
    write_report(path, Report(title, run_facts(REPO), text=text, text_folder=text_folder, pictures=pictures, config=named,
                              changes=changes, scene=shown, no_scene=why))
    print(f'report: {path}', flush=True)
    return path
