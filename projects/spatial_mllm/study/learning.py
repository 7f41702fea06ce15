"""Spatial: study. In: rooms, a frozen tower's tokens, a row. Out: a model that learned the row, and its accuracies."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Qwen2_5_VLConfig

from projects.spatial_mllm.model.spatial_qwen import SpatialQwen25
from projects.spatial_mllm.rooms.furniture import NAMES
from projects.spatial_mllm.study.batches import Batch, Batcher
from projects.spatial_mllm.study.data import MERGE, PATCH
from projects.spatial_mllm.study.rows import Row
from projects.spatial_mllm.study.words import CLASSES, Vocabulary

KINDS = {'other': 'ego direction', 'object_rel_direction_easy': 'relative direction',
         'object_rel_distance': 'relative distance', 'object_abs_distance': 'absolute distance', 'object_counting': 'count',
         'obj_appearance_order': 'order', 'exist': 'exist'}
"""Kinds of questions that are learned, and their columns."""
LATER = ('object_rel_direction_easy', 'object_rel_distance')
"""Kinds that are not learned in the first stage: all at once, none is."""
STAGES = (tuple(kind for kind in KINDS if kind not in LATER),
          (*LATER, 'other', 'object_abs_distance', 'exist'),
          tuple(KINDS))
"""Kinds of the three stages: what is where; where things are to each other, which takes longest; all."""
HIDDEN, _TOWER = 128, dict(depth=2, hidden_size=64, intermediate_size=128, num_heads=4)


@dataclass(frozen=True)
class Schedule:
    """How long a row learns: steps of the stages, rooms of a step, questions of a room and kind, the highest rate."""

    steps: tuple[int, int, int] = (500, 2600, 400)
    rooms: int = 8
    each: int = 8
    rate: float = 2e-3


def build_network(vocabulary: Vocabulary, row: Row, seed: int, shown: Tensor | None = None) -> SpatialQwen25:
    """A Qwen2.5-VL of about half a million parameters with what the row adds; half of the rotary channels are time's.

    Words begin as large as vision tokens, and the name of a thing as what shows it, `shown` (categories, HIDDEN).
    """
    number = vocabulary.number
    config = Qwen2_5_VLConfig(
        text_config=dict(vocab_size=len(vocabulary), hidden_size=HIDDEN, intermediate_size=2 * HIDDEN,
                         initializer_range=HIDDEN ** -0.5,
                         num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
                         rope_scaling=dict(type='mrope', mrope_section=[8, 4, 4])),
        vision_config=dict(_TOWER, patch_size=PATCH, spatial_merge_size=MERGE, temporal_patch_size=2, window_size=56,
                           out_hidden_size=HIDDEN, fullatt_block_indexes=[1], tokens_per_second=2),
        image_token_id=number['<image>'], video_token_id=number['<video>'], vision_start_token_id=number['<start>'],
        vision_end_token_id=number['<end>'])
    config.spatial = dict(row.spatial)
    torch.manual_seed(seed)
    network = SpatialQwen25(config)
    words = nn.init.normal_(network.get_input_embeddings().weight.data)
    if shown is not None:
        words[[number[name] for name in NAMES]] = shown
    return network


class Learner(nn.Module):
    """The network without its tower, and a learned place of each token in its frame, of which the tower knows nothing.

    Args:
        network: its tower is thrown away: tokens are given.
        cells: vision tokens of a frame.
    """

    def __init__(self, network: SpatialQwen25, cells: int) -> None:
        super().__init__()
        network.model.visual.requires_grad_(False)
        self.network = network
        self.place = nn.Parameter(torch.randn(cells, HIDDEN) / 2)

    def forward(self, batch: Batch) -> Tensor:
        """(N, most) scores of the candidates of all questions; -inf where there is none."""
        inputs = dict(batch.inputs)
        if 'video_tokens' in inputs:
            tokens = inputs['video_tokens']
            inputs['video_tokens'] = tokens + self.place.repeat(len(tokens) // len(self.place), 1)
        logits = self.network(**inputs).logits[batch.places[:, 0], batch.places[:, 1]]
        scores = logits.gather(1, batch.candidates.clamp(min=0))
        return scores.masked_fill(batch.candidates < 0, -math.inf)


def _weights(batch: Batch) -> Tensor:
    """All kinds weigh the same, and of a kind whose answers are always the same words all answers."""
    words = batch.candidates.gather(1, batch.answers[:, None])[:, 0].tolist()
    groups = [(kind, word if kind in CLASSES else -1) for kind, word in zip(batch.kinds, words)]
    sizes, answers = Counter(groups), Counter(kind for kind, _ in set(groups))
    return torch.tensor([1 / (sizes[group] * answers[group[0]]) for group in groups])


def learn(learner: Learner, batcher: Batcher, schedule: Schedule, seed: int) -> float:
    """All stages, each of which warms up and cools down; all kinds weigh the same. Returns seconds."""
    started = time.monotonic()
    rng = np.random.default_rng(seed)
    parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    for kinds, steps in zip(STAGES, schedule.steps):
        optimizer = torch.optim.AdamW(parameters, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=0.05)
        for step in range(steps):
            for group in optimizer.param_groups:
                group['lr'] = schedule.rate * min(1.0, (step + 1) / 20, 2 * (1 - step / steps))
            rooms = rng.choice(len(batcher.rooms), min(schedule.rooms, len(batcher.rooms)), replace=False)
            batch = batcher(rooms, kinds, schedule.each, rng)
            weight = _weights(batch)
            loss = (F.cross_entropy(learner(batch), batch.answers, reduction='none') * weight).sum() / weight.sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
    return time.monotonic() - started


@torch.no_grad()
def accuracies(learner: Learner, batcher: Batcher, rooms_at_once: int = 16) -> dict[str, dict[str, Any]]:
    """Kind -> share of right answers over all questions of all rooms, and how many there are."""
    right: dict[str, list[bool]] = defaultdict(list)
    for start in range(0, len(batcher.rooms), rooms_at_once):
        batch = batcher(np.arange(start, min(start + rooms_at_once, len(batcher.rooms))), tuple(KINDS))
        hits = learner(batch).argmax(1) == batch.answers
        for kind, hit in zip(batch.kinds, hits.tolist()):
            right[kind].append(hit)
    return {kind: dict(accuracy=sum(right[kind]) / len(right[kind]), count=len(right[kind])) for kind in KINDS if right[kind]}

