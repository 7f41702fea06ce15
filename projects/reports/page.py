"""Report, the page. In: what was found, plots, pictures, a scene, facts of the run. Out: one HTML file that needs no network.

Everything is escaped, and a content security policy lets the page load nothing and run its own script alone.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from projects.memfusion.data.files import write_text
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.visualization.image_files import read_rgb

from .config_changes import Change
from .markdown import pictures_of, safe_html, tables_of
from .player import PlayedScene, data_uri, player_data
from .plots import plot_table

TEMPLATE = Path(__file__).parent / 'template'
NO_SCENE = 'This run has no scene to play.'
_MAX_PICTURE_PX = 1280


@dataclass(frozen=True)
class Report:
    """What a page says.

    Attributes:
        title: heading.
        verdict: lines that stand first.
        text: Markdown with the tables of metrics; each table is also plotted.
        text_folder: where the pictures that `text` names lie; None: beside nothing, they are left out.
        plots: {title: SVG} beside those of the tables.
        pictures: {caption: file}, PNG or JPEG.
        facts: of `run_facts`.
        config: path of the config, or '' where a run has none.
        changes: of `config_changes`.
        scene: what the player shows; None leaves it out.
        no_scene: why there is none.
    """

    title: str
    facts: Mapping[str, Mapping[str, str]]
    verdict: Sequence[str] = ()
    text: str = ''
    text_folder: Path | None = None
    plots: Mapping[str, bytes] = field(default_factory=dict)
    pictures: Mapping[str, Path] = field(default_factory=dict)
    config: str = ''
    changes: Sequence[Change] = ()
    scene: PlayedScene | None = None
    no_scene: str = NO_SCENE


def write_report(path: Path, report: Report) -> Path:
    """Writes the page, whole or not at all; makes its folder.

    Raises:
        UserError: naming a picture that cannot be read.
    """
    style, script = ((TEMPLATE / name).read_text() for name in ('page.css', 'player.js'))
    environment = Environment(loader=FileSystemLoader(TEMPLATE), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template('page.html').render(
        report=report, text=safe_html(report.text), plots=_plots(report), pictures=_pictures(report),
        scene=None if report.scene is None else player_data(report.scene), style=style, script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, page)
    return path


def _plots(report: Report) -> dict[str, str]:
    """Data URIs by title: an SVG in an img element runs no script."""
    found = dict(report.plots)
    for number, table in enumerate(tables_of(report.text), 1):
        plot = plot_table(table, f'table {number}')
        if plot is not None:
            found[f'table {number}'] = plot
    return {name: f'data:image/svg+xml;base64,{base64.b64encode(svg).decode()}' for name, svg in found.items()}


def _pictures(report: Report) -> dict[str, str]:
    named = {} if report.text_folder is None else pictures_of(report.text, report.text_folder)
    found = {}
    for caption, path in {**report.pictures, **named}.items():
        try:
            image = read_rgb(path)
        except OSError as error:
            raise UserError(f'{path}: missing or not an image, so that it cannot stand in the report') from error
        scale = min(1.0, _MAX_PICTURE_PX / image.shape[1])
        size = (round(image.shape[1] * scale), max(1, round(image.shape[0] * scale)))
        found[caption] = data_uri(cv2.resize(image, size, interpolation=cv2.INTER_AREA), '.jpg')
    return found
