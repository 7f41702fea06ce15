"""Study, model cards. In: what is known of a system. Out: its card as Markdown; stored results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOT_RUN = 'not run'


@dataclass(frozen=True)
class Card:
    """A system: its title, and name and text of every line."""

    title: str
    lines: Mapping[str, str]

    def text(self) -> str:
        """Markdown."""
        return '\n'.join([f'## {self.title}', '', '| | |', '|---|---|', *(f'| {name} | {said} |' for name, said in
                                                                        self.lines.items())])


def read_seeds(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """What is stored in those of the files that are there.

    Raises:
        ValueError: naming a file that cannot be read.
    """
    for path in paths:
        if path.is_file():
            try:
                yield json.loads(path.read_text())
            except json.JSONDecodeError as error:
                raise ValueError(f'{path}: is no result of a study ({error}); remove it and run the study again') from error
