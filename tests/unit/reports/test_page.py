"""The page as a parser sees it: nothing leads outside, texts stay texts, its script parses, its frames are the scene's."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace

import cv2
import esprima
import numpy as np
import pytest
from report_pages import CAMERA, EVIL, Parsed, made_page, made_scene

from projects.memfusion.runtime.errors import UserError
from projects.memfusion.structures.calibration import Calibration
from projects.reports import PlayedScene, Report, write_report
from projects.reports.page import TEMPLATE
from projects.reports.player import player_data


def data_of(page):
    (data,) = [text for kind, text in page.scripts if kind == 'application/json']
    return json.loads(data)


def test_nothing_on_the_page_leads_outside_or_runs_what_a_result_says(tmp_path):
    path = made_page(tmp_path / 'new' / 'report.html', made_scene(EVIL))
    page = Parsed(path.read_text())
    assert page.addresses() and all(value.startswith('data:') for value in page.addresses())
    assert page.handlers() == [] and {tag for tag, _ in page.elements}.isdisjoint({'a', 'iframe', 'object', 'form'})
    assert [kind for kind, _ in page.scripts] == ['application/json', None]
    assert page.words.count(EVIL) >= 6  # heading, verdict, command, table, config and its change: as they were given
    policy = next(attributes['content'] for tag, attributes in page.elements if attributes.get('http-equiv'))
    script = page.scripts[1][1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == ("default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-" + digest + "'")
    assert [entry.name for entry in path.parent.iterdir()] == ['report.html']


def test_scripts_parse(tmp_path):
    page = Parsed(made_page(tmp_path / 'report.html', made_scene()).read_text())
    tree = esprima.parseScript(page.scripts[1][1])
    assert len(tree.body) == 1
    with pytest.raises(esprima.Error):
        esprima.parseScript(page.scripts[1][1] + '}')
    used = set(re.findall(r"control\('([\w-]+)'\)", page.scripts[1][1])) | {'truth', 'predictions', 'gate', 'score', 'scene'}
    assert used <= {attributes.get('id') for _, attributes in page.elements}


def test_frames_and_boxes_are_counted_and_lie_where_they_should(tmp_path):
    data = data_of(Parsed(made_page(tmp_path / 'report.html', made_scene()).read_text()))
    assert [frame['title'] for frame in data['frames']] == ['frame 0', 'frame 1']
    assert data['bev'] == [560, 560] and data['mosaic'] == [960, 360]
    assert data['has'] == dict(truth=True, predictions=True, gate=True)
    truth, found, low = data['frames'][0]['boxes']  # what scores 0.05 is left out
    assert [box['kind'] for box in (truth, found, low)] == ['truth', 'prediction', 'prediction']
    assert (truth['score'], found['score'], low['score']) == (None, 0.9, 0.2) and low['text'] == 'bus' and truth['text'] == EVIL
    # 10 pixels a metre; x = 12 m is 40 m from x_min, y = 1 m is 27 m from y_max, and a pixel's centre is a whole number
    assert truth['bev'].startswith('M399.5 269.5L359.5 269.5L359.5 289.5L399.5 289.5ZM379.5 279.5L399.5 279.5')
    assert found['bev'].startswith('M399.5 259.5')  # 1 m to the left: 10 pixels up
    (tile, path), = truth['cameras']
    assert data['tiles'][tile] == dict(name='CAM_FRONT', x=320, y=0, width=320, height=180)
    # the near face is 8 m away: its corner 1 m to the left and 1 m below lies 20 pixels off the centre
    assert any(np.allclose(point, (140, 110), atol=0.06) for point in numbers(path))


def test_a_camera_that_is_missing_in_some_frames_keeps_its_place():
    """Two cameras of no known rig, one of them in the second frame alone: pictures are as large, boxes in its own tile."""
    scene = made_scene()
    first = scene.frames[0]
    image = first.images['CAM_FRONT']
    rig = Calibration.from_info(dict(left=CAMERA, right=CAMERA), img_hw=(180, 320))
    frames = [replace(first, images=images, calibration=rig) for images in (dict(right=image), dict(left=image, right=image))]
    data = player_data(replace(scene, frames=frames))
    assert data['mosaic'] == [640, 180]
    assert [(tile['name'], tile['x']) for tile in data['tiles']] == [('right', 0), ('left', 320)]
    assert [[place for place, _ in frame['boxes'][0]['cameras']] for frame in data['frames']] == [[0], [0, 1]]
    for frame in data['frames']:
        encoded = np.frombuffer(base64.b64decode(frame['cameras'].partition(',')[2]), np.uint8)
        assert cv2.imdecode(encoded, cv2.IMREAD_COLOR).shape == (180, 640, 3)


def numbers(path):
    return [tuple(map(float, pair.split())) for pair in re.split('[ML]', path)[1:]]


def test_scenes_of_nothing_but_points(tmp_path):
    frame = made_scene().frames[0]
    bare = type(frame)('frame 0', frame.points)
    data = player_data(PlayedScene('s', (-28, -28, 28, 28), [], [bare]))
    assert data['tiles'] == [] and data['has'] == dict(truth=False, predictions=False, gate=False)
    assert data['frames'][0]['boxes'] == [] and data['frames'][0]['cameras'] is None and data['frames'][0]['gate'] is None
    with pytest.raises(ValueError, match='scene s: has no frames'):
        PlayedScene('s', (-28, -28, 28, 28), [], [])


def test_a_page_without_a_scene_says_why(tmp_path):
    page = Parsed(made_page(tmp_path / 'report.html').read_text())
    assert page.scripts == [] and page.words.count(EVIL) >= 7


def test_pictures_that_are_none_are_named(tmp_path):
    (tmp_path / 'broken.png').write_text('no')
    report = Report('x', {}, pictures=dict(one=tmp_path / 'broken.png'))
    with pytest.raises(UserError, match='broken.png: missing or not an image'):
        write_report(tmp_path / 'report.html', report)
    assert not (tmp_path / 'report.html').exists()
    assert sorted(path.name for path in TEMPLATE.iterdir()) == ['page.css', 'page.html', 'player.js']
