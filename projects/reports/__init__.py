"""Reports: one HTML file of a study, a demo or a test series; it needs no network and runs nothing that a result says."""

from .config_changes import Change, config_changes
from .facts import run_facts
from .markdown import section_of
from .page import Report, write_report
from .player import PlayedFrame, PlayedScene
from .study import report_study

__all__ = [
    'Change', 'PlayedFrame', 'PlayedScene', 'Report', 'config_changes', 'report_study', 'run_facts', 'section_of',
    'write_report',
]
