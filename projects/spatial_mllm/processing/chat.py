"""Spatial: processing. In: a question, perhaps its answer, the grid of a video. Out: tokens, and the answer's labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .tokenizer import CHAT_END, CHAT_START, SPECIAL, VIDEO_PAD, VISION_END, VISION_START

NO_LABEL = -100
SYSTEM = 'You are a helpful assistant.'
"""Qwen2.5-VL's line; Qwen3-VL has none."""


@dataclass(frozen=True)
class Chat:
    """Qwen's chat: a system line, the user's video and question, the assistant's answer.

    Args:
        tokenizer: with the special tokens (see tokenizer.py).
        merge: patches along a side of a token.
        by_frames: whether each grid step is a block of its own behind its time (Qwen3-VL), or all are one (Qwen2.5-VL).
        system: the system line; None leaves it out.
        middle: where in a grid step its time lies, a share: two frames, half-way from the first to the second.
        camera_tokens: whether each grid step has a token more.
    """

    tokenizer: Any
    merge: int = 2
    by_frames: bool = False
    system: str | None = SYSTEM
    middle: float = 0.25
    camera_tokens: bool = False

    def encode(self, question: str, grid: Sequence[int] | None, seconds: float,
               answer: str | None = None) -> tuple[Tensor, Tensor]:
        """Tokens (n,) and labels (n,), which are NO_LABEL but for the answer and its end.

        Args:
            question: text; the video stands before it.
            grid: (t, h, w) of the video in patches; None: there is no video.
            seconds: of a grid step.
            answer: None: the model is to give it.

        Raises:
            ValueError: the question or answer holds a special token.
        """
        for text in (question, answer or ''):
            found = [token for token in SPECIAL if token in text]
            if found:
                raise ValueError(f'text holds the special token {found[0]}: {text!r:.80}')
        system = '' if self.system is None else f'{CHAT_START}system\n{self.system}{CHAT_END}\n'
        prompt = f'{system}{CHAT_START}user\n{self._video(grid, seconds)}{question}{CHAT_END}\n{CHAT_START}assistant\n'
        asked = self._tokens(prompt)
        told = [] if answer is None else self._tokens(f'{answer}{CHAT_END}\n')
        labels = [NO_LABEL] * len(asked) + told
        if told:  # the line break behind the end is nobody's to learn
            labels[-1] = NO_LABEL
        return torch.tensor(asked + told), torch.tensor(labels)

    def _video(self, grid: Sequence[int] | None, seconds: float) -> str:
        if grid is None:
            return ''
        steps, tokens = grid[0], grid[1] * grid[2] // self.merge ** 2 + self.camera_tokens
        if not self.by_frames:
            return f'{VISION_START}{VIDEO_PAD * (steps * tokens)}{VISION_END}'
        return ''.join(f'<{(step + self.middle) * seconds:.1f} seconds>{VISION_START}{VIDEO_PAD * tokens}{VISION_END}'
                       for step in range(steps))

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)
