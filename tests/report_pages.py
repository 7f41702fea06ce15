"""What the tests of the page share: a made scene of two frames, and the page as a parser sees it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from projects.memfusion.structures.calibration import Calibration
from projects.memfusion.visualization import BoxSet
from projects.reports import Change, PlayedFrame, PlayedScene, Report, write_report

EVIL = '</script><script>alert(1)</script><img src="http://example.org/x.png">'
CAMERA = dict(cam2img=[[160.0, 0, 160], [0, 160.0, 90], [0, 0, 1]],  # looks along +x of the LiDAR frame
              lidar2cam=[[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def made_scene(name: str = 'scene-0001') -> PlayedScene:
    """One camera, a range of 56 m (10 pixels a metre); a car 10 m ahead that is predicted 1 m to the left of the truth."""
    rig = Calibration.from_info(dict(CAM_FRONT=CAMERA), img_hw=(180, 320))
    image = np.full((180, 320, 3), 120, np.uint8)
    truth = BoxSet(np.array([[10.0, 0, -1, 4, 2, 2, 0]]), np.array([0]))
    found = BoxSet(np.array([[10.0, 1, -1, 4, 2, 2, 0], [5.0, 5, -1, 1, 1, 1, 0], [0.0, 9, 0, 1, 1, 1, 0]]),
                   np.array([0, 1, 7]), np.array([0.9, 0.2, 0.05]))
    gate = np.zeros((4, 4), np.float32)
    frames = [PlayedFrame(f'frame {number}', np.array([[1.0, 2, 0, 0.5]]), truth, found, gate, dict(CAM_FRONT=image), rig)
              for number in range(2)]
    return PlayedScene(name, (-28, -28, 28, 28), [EVIL, 'bus'], frames, 'what is remembered')


def made_page(path: Path, scene: PlayedScene | None = None) -> Path:
    """A page in which every text tries to get out."""
    facts = {'Command': {'command': f'python {EVIL}'}}
    text = f'{EVIL}\n\n| row | mAP |\n|---|---|\n| {EVIL} | 1.0 |\n| b [x](http://example.org) | 2.5 ± 0.5 |\n'
    return write_report(path, Report(EVIL, facts, [EVIL], text, config=EVIL, changes=[Change(EVIL, EVIL, EVIL)], scene=scene,
                                     no_scene=EVIL))


class Parsed(HTMLParser):
    """Elements with their attributes, scripts by type, the words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[str | None, str]] = []
        self.words = ''
        self._inside: str | None = None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == 'script':
            self.scripts.append((dict(attrs).get('type'), ''))

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == 'script':
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif self._inside != 'style':
            self.words += data

    def addresses(self) -> list[str]:
        """Whatever an element would load or lead to."""
        names = ('src', 'href', 'srcset', 'action', 'data', 'poster', 'xlink:href', 'formaction', 'background')
        return [value or '' for _, attributes in self.elements for name, value in attributes.items() if name in names]

    def handlers(self) -> list[str]:
        """Attributes that would run a script."""
        return [name for _, attributes in self.elements for name in attributes if re.match(r'on\w+', name)]
