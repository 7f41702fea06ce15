"""Study, model cards. In: the stored results. Out: docs/model_cards.md: config, data, command, numbers, seeds, cost."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmengine.logging import print_log

from projects.memfusion.data.files import write_text

from .card import Card
from .detectors import fusion_cards, memory_cards, nuscenes_cards
from .forecasters import forecasting_cards
from .poses import encoding_cards

__all__ = ['Card', 'write_cards']

HEAD = """# Model cards

Written by `python tools/model_cards.py` from `docs/results`; what was not run says so. **No number here is of real nuScenes**:
data are synthetic worlds of this project, training is minutes on a CPU, and the numbers compare rows with each other, not with
other papers. Of several seeds: the mean, and ± half the range, or the value of each. What all detectors share: ten nuScenes
classes; what all systems share: trained on nothing but the data that a card names; not for use in a vehicle.
"""


def write_cards(results: Path, doc: Path, more: Iterable[Card] = ()) -> int:
    """Writes the document whole; returns how many cards it has.

    Args:
        results: with a folder of result files for each study.
        more: cards of systems that this package does not know.

    Raises:
        ValueError: naming a result file that cannot be read.
    """
    cards = [*fusion_cards(results / 'fusion'), *memory_cards(results / 'memory'), *forecasting_cards(results / 'forecasting'),
             *encoding_cards(results / 'encodings'), *more, *nuscenes_cards()]
    write_text(doc, '\n\n'.join([HEAD.strip(), *(card.text() for card in cards)]) + '\n')
    print_log(f'{len(cards)} cards written to {doc}', 'current')
    return len(cards)
