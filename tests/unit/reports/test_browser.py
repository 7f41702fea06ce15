"""The page in a browser: the player moves, layers go on and off, nothing is fetched, the console stays empty."""

from __future__ import annotations

import shutil

import pytest
from report_pages import EVIL, made_page, made_scene

pytestmark = pytest.mark.browser


@pytest.fixture(scope='module')
def opened(tmp_path_factory):
    """The page of the made scene, and whatever its console or network said."""
    reason = 'playwright is missing: pip install -r requirements/browser.txt'
    sync_api = pytest.importorskip('playwright.sync_api', reason=reason)
    chromium = shutil.which('chromium')
    if chromium is None:
        pytest.skip('Chromium is missing: apt-get install -y chromium')
    path = made_page(tmp_path_factory.mktemp('page') / 'report.html', made_scene(EVIL))
    said = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        page = browser.new_page()
        page.on('console', lambda message: said.append(message.text))
        page.on('pageerror', lambda error: said.append(str(error)))
        page.on('dialog', lambda dialog: said.append(dialog.message))
        page.on('request', lambda request: said.append(request.url) if not request.url.startswith(('data:', 'file:')) else None)
        page.goto(path.as_uri())
        yield page, said
        browser.close()


def move(page, control, value):
    page.locator(control).evaluate('(one, to) => { one.value = to; one.dispatchEvent(new Event("input")); }', value)


def test_the_player_moves_and_layers_go_on_and_off(opened):
    page, said = opened

    def shown():
        return page.locator('#bev-boxes path').count(), page.locator('#cameras svg path').count()

    assert page.locator('#title').inner_text() == 'frame 0' and shown() == (2, 2)  # what scores 0.2 is below 0.3
    move(page, '#frame', '1')
    assert page.locator('#title').inner_text() == 'frame 1'
    assert page.locator('#bev-picture').get_attribute('href').startswith('data:image/png')
    page.locator('#truth').uncheck()
    assert page.locator('#bev-boxes .truth').count() == 0 and shown()[0] == 1
    move(page, '#score', '0.1')
    assert page.locator('#bev-boxes .prediction').count() == 2
    page.locator('#predictions').uncheck()
    assert shown() == (0, 0)
    page.locator('#truth').check()
    assert page.locator('#bev-boxes title').text_content() == f'truth: {EVIL}'
    assert page.locator('#gate-picture').get_attribute('href') is None
    page.locator('#gate').check()
    assert page.locator('#gate-picture').get_attribute('href').startswith('data:image/png')
    move(page, '#frame', '0')
    page.locator('#play').click()
    sync_api = pytest.importorskip('playwright.sync_api')
    sync_api.expect(page.locator('#title')).to_have_text('frame 1', timeout=20_000)
    page.locator('#play').click()
    assert page.locator('#play').inner_text() == 'play'
    assert page.evaluate('fetch("http://example.org").then(() => "fetched", () => "refused")') == 'refused'
    assert [line for line in said if 'example.org' not in line] == []  # the refused fetch above is the only thing it says
