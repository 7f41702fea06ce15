"""Spatial: speed. In: a number of tokens. Out: calls of one attention layer of Qwen2.5-VL, the library's own and with poses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig

from projects.spatial_mllm.model.poses import FramePoses, Scene
from projects.spatial_mllm.model.spatial_qwen import SpatialQwen25

HEADS, KEY_HEADS, HEAD_DIM, STEPS = 16, 2, 128, 16
LIBRARY = "the library's"
CASES = {
    LIBRARY: None, 'replace': dict(mode='replace'), 'replace, values': dict(mode='replace', values=True),
    'replace, half of the heads': dict(mode='replace', heads=tuple(range(HEADS // 2))),
    'append, 32 channels': dict(mode='append', channels=32), 'bias': dict(mode='bias'),
}
"""Name -> pose settings."""


def attention_cases(tokens: int = 4096) -> dict[str, Callable[[], Tensor]]:
    """Name -> one layer over a row of so many tokens, nearly all of them a video's; binding the poses is part of it."""
    hidden = torch.randn(1, tokens, HEADS * HEAD_DIM, generator=torch.Generator().manual_seed(0))
    scene = _scene(tokens)
    return {name: partial(_attend, _model(pose), hidden, scene) for name, pose in CASES.items()}


def _model(pose: dict | None) -> SpatialQwen25:
    width = HEADS * HEAD_DIM
    text = dict(vocab_size=320, hidden_size=width, intermediate_size=96, num_hidden_layers=1, num_attention_heads=HEADS,
                num_key_value_heads=KEY_HEADS, rope_scaling=dict(type='mrope', mrope_section=[16, 24, 24]))
    vision = dict(depth=1, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=width, fullatt_block_indexes=[0])
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    config.spatial = dict(pose=pose)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SpatialQwen25(config).eval()


def _scene(tokens: int) -> Scene:
    step = torch.full((1, tokens), -1)
    each = (tokens - 64) // STEPS
    step[0, 32:32 + STEPS * each] = torch.arange(STEPS).repeat_interleave(each)
    pose = torch.eye(4, dtype=torch.float64).repeat(STEPS, 1, 1)
    pose[:, 0, 3] = torch.arange(STEPS)
    return Scene(step, FramePoses(pose, torch.eye(3, dtype=torch.float64).expand(STEPS, 3, 3)))


@torch.no_grad()
def _attend(model: SpatialQwen25, hidden: Tensor, scene: Scene) -> Tensor:
    language = model.model.language_model
    turns = language.rotary_emb(hidden, torch.arange(hidden.shape[1]).expand(3, 1, -1))
    plan = model.pose_plan
    bound = {} if plan is None else dict(pose=plan.bind(model.pose_encoding, scene.views(), hidden.device))
    return language.layers[0].self_attn(hidden_states=hidden, position_embeddings=turns, attention_mask=None, **bound)[0]
