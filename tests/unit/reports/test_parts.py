"""Parts of the page: what a config changes, sections and tables of documents, plots, facts of the run."""

from __future__ import annotations

import subprocess
import sys
import xml.dom.minidom

import pytest

from projects.memfusion.runtime.errors import UserError
from projects.reports import Change, config_changes, section_of
from projects.reports.config_changes import parents_of
from projects.reports.facts import command_facts, environment_facts, git_facts
from projects.reports.markdown import Table, pictures_of, safe_html, tables_of
from projects.reports.plots import plot_curves, plot_table
from projects.reports.study import REPO, report_study

BASE = "model = dict(type='X', alpha=1.0, layers=[1, 2])\npipeline = [dict(type='A'), dict(type='B', p=0.5)]\n"


def test_changes_against_the_parent_by_hand(tmp_path):
    (tmp_path / 'base.py').write_text(BASE)
    leaf = tmp_path / 'sub' / 'leaf.py'
    leaf.parent.mkdir()
    leaf.write_text("_base_ = '../base.py'\nmodel = dict(alpha=0.5, beta='</td>')\npipeline = [dict(type='A')]\n")
    assert config_changes(leaf, {'model.layers': [3]}) == [
        Change('model.alpha', '1.0', '0.5'), Change('model.layers', '[1, 2]', '[3]'), Change('model.beta', '-', "'</td>'"),
        Change('pipeline.1.type', "'B'", '-'), Change('pipeline.1.p', '0.5', '-')]
    assert config_changes(tmp_path / 'base.py') == []
    assert config_changes(tmp_path / 'base.py', dict(seed=3)) == [Change('seed', '-', '3')]


def test_the_readme_s_ablation_changes_what_it_says(tmp_path, repo):
    parent = repo / 'configs/temporal/xmem-gate_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
    leaf = tmp_path / 'leaf.py'
    leaf.write_text(f"_base_ = '{parent}'\nmodel = dict(temporal=dict(alpha=0.5, max_mem_frames=8))\n"
                    'train_dataloader = dict(dataset=dict(seq_len=6))\n')
    assert [change.key for change in config_changes(leaf)] == [
        'model.temporal.alpha', 'model.temporal.max_mem_frames', 'train_dataloader.dataset.seq_len']


def test_parents_of_packages_are_left_as_they_are_named(tmp_path):
    (tmp_path / 'c.py').write_text("_base_ = ['mmdet3d::_base_/default_runtime.py', './a.py']\n")
    assert parents_of(tmp_path / 'c.py') == ['mmdet3d::_base_/default_runtime.py', str(tmp_path / 'a.py')]


@pytest.mark.parametrize('text, words', [(None, 'no such config file'), ('a = (', 'cannot be read as a config'),
                                         ("_base_ = './no.py'\n", 'cannot be read as a config'), ('a = 1 / 0', 'ZeroDivision')])
def test_configs_that_cannot_be_read(tmp_path, text, words):
    if text is not None:
        (tmp_path / 'c.py').write_text(text)
    with pytest.raises(UserError, match=f'c.py.*{words}'):
        config_changes(tmp_path / 'c.py')


def test_sections_of_documents(tmp_path):
    doc = tmp_path / 'doc.md'
    doc.write_text('before\n<!-- a -->\n\n| x |\n|---|\n| 1 |\n\n'
                   '![curve](p.png) ![gone](q.png) ![far](http://h/i.png)\n<!-- b -->\n')
    (tmp_path / 'p.png').touch()
    text = section_of(doc, ('<!-- a -->', '<!-- b -->'))
    assert tables_of(text) == [Table(('x',), (('1',),))] and pictures_of(text, tmp_path) == dict(curve=tmp_path / 'p.png')
    with pytest.raises(UserError, match='doc.md has no lines <!-- a --> and <!-- c -->'):
        section_of(doc, ('<!-- a -->', '<!-- c -->'))
    with pytest.raises(UserError, match='no.md: cannot be read'):
        section_of(tmp_path / 'no.md', ('', ''))


def test_markdown_is_shown_and_not_run():
    html = safe_html('**b** `c` <b onclick=x>\n\n[w](javascript:x) ![p](y.png) <http://h>\n\n| h |\n|---|\n| <i>1</i> |\n')
    assert '<strong>b</strong> <code>c</code> &lt;b onclick=x&gt;' in html and '<td>&lt;i&gt;1&lt;/i&gt;</td>' in html
    assert '<a' not in html and '<img' not in html and '<b ' not in html and 'w ' in html


def test_plots_show_columns_that_differ():
    table = Table(('row', 'of', 'mAP', 'same', 'text'), (
        ('a', 'x', '1.0 ± 0.5', '2', 'x'), ('b', '$y', '+2.5', '2', '-'), ('c', 'z', '-', '2', '1')))
    svg = plot_table(table, 't').decode()
    assert 'a, x' in svg and 'mAP' in svg and 'same' not in svg and 'text</text>' not in svg
    xml.dom.minidom.parseString(svg)
    assert plot_table(table, 't').decode() == svg
    assert plot_table(Table(('a', 'b'), (('x', '1'), ('y', '1'))), 't') is None and plot_table(Table(('a',), ()), 't') is None
    apart = Table(('row', 'AP, a', 'AP, b'), (('x', '0.001', '0.5'), ('y', '0.002', '0.6')))
    assert b'0.002</text>' not in plot_table(apart, 't') and b'0.6</text>' in plot_table(apart, 't')  # one scale for both
    assert plot_curves({}, 't', 'step') is None and b'loss_a' in plot_curves(dict(loss_a=([0, 1], [2, 1])), 't', 'step')


def test_facts(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['tools/x.py', '--title', 'two words'])
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setenv('SECRET', 'hidden')
    assert command_facts()['command'] == "python tools/x.py --title 'two words'"
    found = environment_facts()
    assert found['numpy'] == '1.26.4' and found['OMP_NUM_THREADS'] == '1' and 'hidden' not in str(found)
    assert 'not a git checkout' in git_facts(tmp_path)['commit']


def test_git_says_what_was_changed(tmp_path):
    def git(*words):
        subprocess.run(['git', '-C', str(tmp_path), '-c', 'user.name=n', '-c', 'user.email=e', *words], check=True,
                       capture_output=True)

    git('init', '-b', 'trunk')
    (tmp_path / 'a').write_text('1')
    git('add', 'a')
    git('commit', '-m', 'Start <b>')
    assert git_facts(tmp_path)['changed since'] == 'nothing'
    (tmp_path / 'a').write_text('2')
    found = git_facts(tmp_path)
    assert found['subject'] == 'Start <b>' and found['branch'] == 'trunk' and found['changed since'] == ' M a'
    assert len(found['commit']) == 40


def test_a_study_s_page_names_its_config(tmp_path, capsys):
    config = 'configs/demo/copy_pillar04_second_secfpn_tiny-synthetic.py'
    for given in (config, str(REPO / config)):
        path = report_study(tmp_path / 'report.html', 'A study', '| a | b |\n|---|---|\n| x | 1 |\n| y | 2 |', config=given)
        page = path.read_text()
        assert f'<code>{config}</code>' in page and 'nothing differs' not in page and 'This run has no scene to play.' in page
    assert f'report: {path}' in capsys.readouterr().out
