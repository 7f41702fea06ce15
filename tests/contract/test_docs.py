"""The documents: every link leads somewhere, and the site builds without a network, warnings being errors."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from sources import REPO

DOCUMENTS = sorted(path for path in REPO.rglob('*.md') if not {'.venv', '.wheels', 'build', 'work_dirs', 'data'} & {
    part for part in path.relative_to(REPO).parts[:1]})
LINK = re.compile(r'\]\(([^)\s]+)\)')


def anchors(text):
    """What GitHub and mkdocs make of headings."""
    heads = re.findall(r'^#+ (.+)$', re.sub(r'^```.*?^```', '', text, flags=re.M | re.S), re.M)
    return {re.sub(r'\s', '-', re.sub(r'[^\w\s-]', '', head.strip().lower())) for head in heads}


def prose(path):
    """The text without code, whose brackets are no links."""
    text = re.sub(r'^```.*?^```', '', path.read_text(), flags=re.M | re.S)
    return re.sub(r'`[^`\n]*`', '', re.sub(r'^    .*$', '', text, flags=re.M))


def test_every_link_leads_to_a_file_and_a_heading():
    wrong = []
    for path in DOCUMENTS:
        for link in LINK.findall(prose(path)):
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            if not target.exists():
                wrong.append(f'{path.relative_to(REPO)}: {link}')
            elif parts.fragment and target.suffix == '.md' and parts.fragment not in anchors(target.read_text()):
                wrong.append(f'{path.relative_to(REPO)}: {link}: no such heading')
    assert len(DOCUMENTS) > 20 and wrong == []


def test_links_to_nowhere_are_found():
    assert anchors('# A b, `c` (d)\n```\n# no\n```\n## Which-frames stay') == {'a-b-c-d', 'which-frames-stay'}


class Loaded(HTMLParser):
    """What a browser fetches for a page by itself."""

    def __init__(self, text):
        super().__init__()
        self.fetched = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ('script', 'img', 'iframe', 'source') and given.get('src'):
            self.fetched.append(given['src'])
        if tag == 'link' and given.get('rel') in ('stylesheet', 'preconnect', 'icon', 'preload'):
            self.fetched.append(given.get('href', ''))


def test_the_site_builds_without_a_network_and_fetches_nothing(tmp_path):
    pytest.importorskip('material', reason='mkdocs-material is missing: pip install -r requirements/docs.txt')
    no_network = 'import socket, sys; socket.socket.connect = None; from mkdocs.__main__ import cli; cli(sys.argv[1:])'
    build = ('build', '--strict', '--quiet', '--site-dir', tmp_path)
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', no_network, *build], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {path.stem for path in tmp_path.glob('*.html')}
    assert {path.stem for path in (REPO / 'docs').glob('*.md')} <= pages
    for path in tmp_path.glob('*.html'):
        assert [one for one in Loaded(path.read_text()).fetched if urlsplit(one).scheme or one.startswith('//')] == [], path
