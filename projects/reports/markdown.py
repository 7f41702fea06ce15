"""Report. In: Markdown of our own documents. Out: safe HTML (no raw HTML, no links), its tables, a section between markers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from projects.memfusion.runtime.errors import UserError

_PICTURE = re.compile(r'!\[([^\]]*)\]\(([^)\s]+)\)')
_LINK = re.compile(r'(?<!!)\[([^\]]+)\]\([^)\s]+\)')


@dataclass(frozen=True)
class Table:
    """heads: of the columns; rows: cells as text."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def safe_html(text: str) -> str:
    """HTML of Markdown with tables; whatever is HTML in it is shown as text, links and pictures are their words."""
    plain = _LINK.sub(r'\1', _PICTURE.sub('', text))
    parser = MarkdownIt('commonmark', dict(html=False)).enable('table').disable(['link', 'image', 'autolink', 'html_block'])
    return parser.render(plain)


def tables_of(text: str) -> list[Table]:
    """The tables of a Markdown text, in its order."""
    tables, kept = [], []
    for line in [*text.splitlines(), '']:
        if line.startswith('|'):
            kept.append(tuple(cell.strip() for cell in line.strip().strip('|').split('|')))
        elif kept:
            heads, *rows = (row for row in kept if not all(re.fullmatch(r':?-+:?', cell) for cell in row))
            tables.append(Table(heads, tuple(rows)))
            kept = []
    return tables


def pictures_of(text: str, folder: Path) -> dict[str, Path]:
    """{caption: file} of the pictures that a text shows; files that are addresses or not there are left out."""
    found = {caption: folder / name for caption, name in _PICTURE.findall(text) if '://' not in name}
    return {caption: path for caption, path in found.items() if path.is_file()}


def section_of(doc: Path, markers: tuple[str, str]) -> str:
    """The text between a document's markers.

    Raises:
        UserError: where the document is not there or has no such markers.
    """
    try:
        text = doc.read_text()
    except OSError as error:
        raise UserError(f'{doc}: cannot be read: {error.strerror}') from error
    begin, end = markers
    if begin not in text or end not in text.split(begin, 1)[1]:
        raise UserError(f'{doc} has no lines {begin} and {end} between which the tables stand')
    return text.split(begin, 1)[1].split(end, 1)[0].strip()
