"""Spatial: a checkpoint folder of a small model with random weights. In: texts. Out: config, weights, tokenizer.

    python -m projects.spatial_mllm.tiny_checkpoint work_dirs/tiny_qwen --texts data/rooms/train/sft.jsonl

Nothing is downloaded: the tokenizer is learnt from the texts. For trying things out on a CPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from projects.spatial_mllm.processing.tokenizer import IMAGE_PAD, VIDEO_PAD, VISION_END, VISION_START, train_tokenizer

FAMILIES = ('qwen2_5_vl', 'qwen3_vl')
SIZES = dict(hidden=128, layers=3, heads=4, key_heads=2, vision_hidden=64, vision_depth=2, vision_heads=4)


def make_tiny_checkpoint(folder: str | Path, texts: Iterable[str], family: str = 'qwen2_5_vl', seed: int = 0,
                         sizes: Mapping[str, int] | None = None, vocab_size: int = 512) -> None:
    """Writes the folder.

    Args:
        folder: is made.
        texts: for the tokenizer.
        family: of FAMILIES.
        seed: of the weights.
        sizes: in place of some of SIZES.
        vocab_size: of the tokenizer, without the special tokens.

    Raises:
        ValueError: for another family, or another size.
    """
    unknown = sorted(set(sizes or {}) - set(SIZES))
    if family not in FAMILIES or unknown:
        raise ValueError(f'family={family!r} must be one of {", ".join(FAMILIES)}; unknown sizes: {unknown}')
    tokenizer = train_tokenizer(texts, vocab_size)
    config = _config(family, {**SIZES, **(sizes or {})}, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = Qwen2_5_VLForConditionalGeneration if family == 'qwen2_5_vl' else Qwen3VLForConditionalGeneration
        kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _config(family: str, sizes: Mapping[str, int], tokenizer: Any) -> Any:
    head_dim = sizes['hidden'] // sizes['heads']
    text = dict(vocab_size=len(tokenizer), hidden_size=sizes['hidden'], intermediate_size=3 * sizes['hidden'],
                num_hidden_layers=sizes['layers'], num_attention_heads=sizes['heads'], num_key_value_heads=sizes['key_heads'])
    vision = dict(depth=sizes['vision_depth'], hidden_size=sizes['vision_hidden'], intermediate_size=2 * sizes['vision_hidden'],
                  num_heads=sizes['vision_heads'], patch_size=14, spatial_merge_size=2, temporal_patch_size=2,
                  out_hidden_size=sizes['hidden'])
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in dict(
        image_token_id=IMAGE_PAD, video_token_id=VIDEO_PAD, vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END).items()}
    pairs = head_dim // 2
    if family == 'qwen2_5_vl':
        sections = [pairs // 4, *[(pairs - pairs // 4) // 2] * 2]
        return Qwen2_5_VLConfig(
            text_config=dict(text, rope_scaling=dict(type='mrope', mrope_section=sections)),
            vision_config=dict(vision, window_size=56, fullatt_block_indexes=[sizes['vision_depth'] - 1],
                               tokens_per_second=2), **ids)
    sections = [pairs - 2 * (pairs // 4), pairs // 4, pairs // 4]
    return Qwen3VLConfig(
        text_config=dict(text, head_dim=head_dim, rope_scaling=dict(rope_type='default', mrope_section=sections)),
        vision_config=dict(vision, num_position_embeddings=64, deepstack_visual_indexes=[0]), **ids)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='is made')
    parser.add_argument('--texts', type=Path, required=True, help='JSON lines of conversations, or any text file')
    parser.add_argument('--family', choices=FAMILIES, default=FAMILIES[0])
    parser.add_argument('--seed', type=int, default=0, help='of the weights')
    for name, value in SIZES.items():
        parser.add_argument(f'--{name.replace("_", "-")}', type=int, default=value)
    args = parser.parse_args(argv)
    try:
        make_tiny_checkpoint(args.folder, read_texts(args.texts), args.family, args.seed,
                             {name: getattr(args, name) for name in SIZES})
    except (OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'wrote {args.folder}')
    return 0


def read_texts(path: Path) -> list[str]:
    """The turns of conversations in JSON lines; of other files the lines."""
    lines = path.read_text().splitlines()
    try:
        turns = [turn['value'] for line in lines for turn in json.loads(line)['conversations']]
    except (ValueError, KeyError, TypeError):
        return lines
    return [turn.replace('<video>', '') for turn in turns]


if __name__ == '__main__':
    sys.exit(main())
