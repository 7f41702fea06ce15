"""Spatial: scoring. In: what a model answered, batch by batch. Out: a benchmark's scores, as metrics of MMEngine.

With `answers=FOLDER` every answer is kept as it comes, and what is scored is the folder: a run that was cut off asks only what
is missing, and several processes write beside each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet3d.registry import METRICS
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from projects.spatial_mllm.scoring.report import score
from projects.spatial_mllm.scoring.rows import KEYS, Row
from projects.spatial_mllm.scoring.store import AnswerStore


class _AnswerMetric(BaseMetric):
    """Scores rows that carry a `prediction`.

    Metric names are those of the protocol, with the benchmark's name before them; `num_rows`, `num_problems` and `num_flags`
    say how far they can be believed, and the log says why.
    """

    benchmark: str

    def __init__(self, protocol: str, answers: str | None, collect_device: str, prefix: str | None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix or self.benchmark)
        score([], self.benchmark, protocol)  # refuses a protocol that it does not know
        self.protocol = protocol
        self.answers = answers

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Keeps the answers of a batch.

        Args:
            data_batch: not used.
            data_samples: rows: the question's own keys and `prediction`, the answer as text.
        """
        key = KEYS[self.benchmark]
        store = None if self.answers is None else AnswerStore(self.answers, get_rank(), key=key)
        for sample in data_samples:
            self.results.append(dict(sample))
            if store is not None:
                store.add(sample)

    def compute_metrics(self, results: list[dict[str, Any]]) -> dict[str, float]:
        """Called by one process with the rows of all: padding of the last batch, which repeats rows, counts once."""
        key = KEYS[self.benchmark]
        if self.answers is not None:
            rows = list(AnswerStore(self.answers, key=key).finished().values())
        else:
            rows = list({str(row.get(key, f'row {number}')): row for number, row in enumerate(results)}.values())
        report = score([Row(f'{key} {row.get(key)}', row) for row in rows], self.benchmark, self.protocol)
        print_log(report.text(20), logger='current')
        counts = dict(num_rows=report.num_rows, num_problems=len(report.problems), num_flags=len(report.flags))
        return {**report.scores, **report.beside, **{name: float(count) for name, count in counts.items()}}


@METRICS.register_module()
class VSIBenchMetric(_AnswerMetric):
    """VSI-Bench: rows with `id`, `question_type`, `ground_truth`, `prediction`.

    Args:
        protocol: 'official' (percent) or 'spatial_mllm' (fractions).
        answers: folder that keeps them; None: nothing is kept.
        collect_device: where processes exchange rows: 'cpu' or 'gpu'.
        prefix: of the metric names.
    """

    benchmark = 'vsibench'

    def __init__(self, protocol: str = 'official', answers: str | None = None, collect_device: str = 'cpu',
                 prefix: str | None = None) -> None:
        super().__init__(protocol, answers, collect_device, prefix)


@METRICS.register_module()
class SQA3DMetric(_AnswerMetric):
    """SQA3D: rows with `question_id`, `question`, `answers`, `prediction`.

    Args:
        protocol: 'em' (EM@1 and EM-R), 'leo' or 'llm_script'; fractions.
        answers: folder that keeps them; None: nothing is kept.
        collect_device: where processes exchange rows: 'cpu' or 'gpu'.
        prefix: of the metric names.
    """

    benchmark = 'sqa3d'

    def __init__(self, protocol: str = 'em', answers: str | None = None, collect_device: str = 'cpu',
                 prefix: str | None = None) -> None:
        super().__init__(protocol, answers, collect_device, prefix)
