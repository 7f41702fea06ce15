"""Spatial: processing. In: a checkpoint folder, or texts to learn from. Out: config; a tokenizer for videos and chats."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from tokenizers import ByteLevelBPETokenizer
from transformers import AutoConfig, AutoTokenizer, Qwen2TokenizerFast

END_OF_TEXT, CHAT_START, CHAT_END = '<|endoftext|>', '<|im_start|>', '<|im_end|>'
VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD = '<|vision_start|>', '<|vision_end|>', '<|image_pad|>', '<|video_pad|>'
SPECIAL = (END_OF_TEXT, CHAT_START, CHAT_END, VISION_START, VISION_END, IMAGE_PAD, VIDEO_PAD)


def load_config(folder: str | Path, known: Collection[str]) -> Any:
    """The config of a local checkpoint folder.

    Args:
        folder: with config.json.
        known: types of models, of which it must be one.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: naming the folder: its config cannot be read, or is of another type.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f'{folder}: no such folder; give a local one with config.json, weights and tokenizer')
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f'{folder}: config.json cannot be read ({shortened(error)})') from error
    if config.model_type not in known:
        raise ValueError(f'{folder}: a {config.model_type} model; known are {", ".join(known)}')
    return config


def shortened(error: BaseException) -> str:
    """The start of what an error says, on one line."""
    return ' '.join(str(error).split())[:200]


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a local checkpoint folder.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: naming the folder: it holds no tokenizer, or one without a special token.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f'{folder}: no such folder; give a local checkpoint folder with config, weights and tokenizer')
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of a file that was cut off the library raises exactly that
        raise ValueError(f'{folder}: holds no tokenizer that can be read ({shortened(error)})') from error
    check_tokenizer(tokenizer, str(folder))
    return tokenizer


def check_tokenizer(tokenizer: Any, name: str) -> None:
    """Raises ValueError, naming it, where the tokenizer lacks a special token or cuts one into pieces."""
    known = tokenizer.get_vocab()
    missing = [token for token in SPECIAL if token not in known or len(tokenizer.encode(token)) != 1]
    if missing:
        raise ValueError(f'{name}: the tokenizer has no token of its own for {", ".join(missing)}: it is not the tokenizer of '
                         'a Qwen-VL model')


def train_tokenizer(texts: Iterable[str], vocab_size: int = 512) -> Any:
    """A byte-level BPE learnt from texts, in Qwen2's format, with all special tokens; needs nothing from a network.

    Args:
        texts: to learn from, the same in, the same out.
        vocab_size: without the special tokens, at least 256.
    """
    learnt = ByteLevelBPETokenizer()
    learnt.train_from_iterator(texts, vocab_size=vocab_size, min_frequency=2, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        vocab, merges = learnt.save_model(folder)
        tokenizer = Qwen2TokenizerFast(vocab, merges, additional_special_tokens=list(SPECIAL[1:]), pad_token=END_OF_TEXT,
                                       eos_token=CHAT_END)
    check_tokenizer(tokenizer, 'a new tokenizer')
    return tokenizer


def check_ids(tokenizer: Any, config: Any, name: str) -> None:
    """Raises ValueError, naming the folder, where model and tokenizer mean other numbers by the vision tokens."""
    wanted = dict(image_token_id=IMAGE_PAD, video_token_id=VIDEO_PAD)
    ids = {key: (getattr(config, key, None), tokenizer.convert_tokens_to_ids(token)) for key, token in wanted.items()}
    wrong = {key: pair for key, pair in ids.items() if pair[0] != pair[1]}
    if wrong:
        raise ValueError(f'{name}: config.json and tokenizer disagree (config, tokenizer): {json.dumps(wrong)}')
