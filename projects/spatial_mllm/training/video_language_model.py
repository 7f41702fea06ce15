"""Spatial: training. In: batches of SpatialQADataset. Out: losses, or rows with predictions; a model for MMEngine's Runner."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModel
from safetensors import SafetensorError
from transformers.utils import logging

from projects.spatial_mllm.model.poses import Scene
from projects.spatial_mllm.model.spatial_qwen import FAMILIES
from projects.spatial_mllm.processing.tokenizer import CHAT_END, END_OF_TEXT, load_config, load_tokenizer, shortened

from .lora import add_lora

_DTYPES = dict(float32=torch.float32, bfloat16=torch.bfloat16)
_TUNES = ('full', 'connector', 'lora')
_NEW = ('connector.', 'encoder.', 'pose_encoding.', '.pose_q.', '.pose_k.')
"""In names of parameters that the library's model does not have."""


def load_model(checkpoint: str | Path, spatial: Mapping[str, Any] | None = None, dtype: str = 'float32',
               attention: str = 'sdpa') -> Any:
    """A SpatialQwen of a local checkpoint folder.

    Args:
        checkpoint: folder in the library's format.
        spatial: what is added (see SpatialMixin); None: what the folder's config says.
        dtype: 'float32' or 'bfloat16'.
        attention: kernel of the library: 'sdpa', 'eager', 'flash_attention_2'.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: naming the folder or the setting.
    """
    if dtype not in _DTYPES:
        raise ValueError(f'dtype={dtype!r}: must be one of {", ".join(_DTYPES)}')
    config = load_config(checkpoint, FAMILIES)
    if spatial is not None:
        config.spatial = {name: None if part is None else dict(part) for name, part in spatial.items()}
    shown = logging.get_verbosity()
    logging.set_verbosity_error()  # new parts are missing in the folder, which is what it would say
    try:
        return FAMILIES[config.model_type].from_pretrained(
            checkpoint, config=config, dtype=_DTYPES[dtype], attn_implementation=attention, local_files_only=True)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ValueError(f'{checkpoint}: its weights cannot be loaded ({shortened(error)}): are they whole, and those of its '
                         'config.json?') from error
    finally:
        logging.set_verbosity(shown)


@MODELS.register_module()
class VideoLanguageModel(BaseModel):
    """Qwen2.5-VL or Qwen3-VL that is told the geometry.

    Args:
        checkpoint: local folder in the library's format, with a tokenizer.
        spatial: dict(pose=..., connector=..., encoder=...), see docs/spatial_mllm.md; None: as the folder says.
        tune: what learns: 'full', 'connector' (all that the library's model does not have), or 'lora' (and that).
        frozen: parts that stay as they are with tune='full', beginnings of names below `model`, e.g. ('visual',).
        lora: settings of peft's LoraConfig.
        dtype: of the arithmetic and of what does not learn, 'float32' or 'bfloat16'. What learns is kept in float32: a step of
            1e-5 is less than what bfloat16 can add to a weight.
        attention: kernel, see `load_model`.
        gradient_checkpointing: less memory, more time.
        max_new_tokens: of an answer.
        data_preprocessor: MMEngine's; it moves batches to the device.
        init_cfg: MMEngine's.
    """

    def __init__(self, checkpoint: str, spatial: dict | None = None, tune: str = 'full', frozen: tuple = (),
                 lora: dict | None = None, dtype: str = 'float32', attention: str = 'sdpa',
                 gradient_checkpointing: bool = False, max_new_tokens: int = 16, data_preprocessor: dict | None = None,
                 init_cfg: dict | None = None) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if tune not in _TUNES:
            raise ValueError(f'model.tune={tune!r}: must be one of {", ".join(_TUNES)}')
        if lora is not None and tune != 'lora':
            raise ValueError(f"model.lora is for tune='lora', not {tune!r}")
        self.tokenizer = load_tokenizer(checkpoint)
        self.network = load_model(checkpoint, spatial, dtype, attention)
        self.tune, self.max_new_tokens, self.dtype = tune, max_new_tokens, _DTYPES[dtype]
        if tune == 'lora':
            add_lora(self.network, lora or {})
        self._choose(tuple(frozen))
        if gradient_checkpointing:
            self.network.gradient_checkpointing_enable(dict(use_reentrant=False))

    def _choose(self, frozen: tuple) -> None:
        """Which parameters learn."""
        names = dict(self.network.named_parameters())
        unknown = [start for start in frozen if not any(name.startswith(f'model.{start}.') for name in names)]
        if unknown:
            parts = sorted(name for name, _ in self.network.model.named_children())
            raise ValueError(f'model.frozen={list(frozen)}: nothing below {", ".join(unknown)}; parts are {", ".join(parts)}')
        for name, parameter in names.items():
            new = any(part in f'.{name}' if part[0] == '.' else name.startswith(part) for part in _NEW)
            if self.tune == 'full':
                learns = not any(name.startswith(f'model.{start}.') for start in frozen)
            else:
                learns = new or 'lora_' in name
            parameter.requires_grad_(learns)
            if learns:
                parameter.data = parameter.data.float()
        if not any(parameter.requires_grad for parameter in self.network.parameters()):
            raise ValueError(f'model.tune={self.tune!r}: nothing learns; the model has no connector and no new pose channels')

    def init_weights(self) -> None:
        """The folder has the weights."""

    def all_in_dtype(self) -> None:
        """What would learn takes the dtype of the rest, where nothing learns any more: half the memory to answer with.

        Buffers stay, as when a folder is loaded: rotary frequencies in bfloat16 are off by radians after a thousand tokens.
        """
        for parameter in self.network.parameters():
            parameter.data = parameter.data.to(self.dtype)

    def forward(self, inputs: dict | None, data_samples: list, mode: str = 'tensor') -> Any:
        """A batch of `spatial_collate`.

        Args:
            inputs: of the model; None where no video of the batch could be read.
            data_samples: rows.
            mode: 'loss' -> dict(loss), 'predict' -> rows with `prediction`, 'tensor' -> logits.
        """
        given = self._given(inputs)
        with self._arithmetic():
            if mode == 'predict':
                return self._answers(given, data_samples)
            outputs = self.network(**given)
        return dict(loss=outputs.loss) if mode == 'loss' else outputs.logits

    def _arithmetic(self) -> AbstractContextManager:
        """In the model's dtype. Nothing is cached: that would be all weights once more, until the end of a pass."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(next(self.network.parameters()).device.type, self.dtype, cache_enabled=False)

    def _given(self, inputs: dict | None) -> dict[str, Any]:
        device = next(self.network.parameters()).device
        return {name: value.to(device) if isinstance(value, Scene) else value for name, value in (inputs or {}).items()}

    def _answers(self, given: dict[str, Any], rows: list[dict]) -> list[dict]:
        """The rows, each with its `prediction`; None where the video could not be read.

        Raises:
            ValueError: the batch is packed, or padded on the right, where the answer is to stand.
        """
        told = iter(())
        if given:
            mask = given['attention_mask']
            if mask is None or not bool(mask[:, -1].all()):
                raise ValueError("answers are written behind their questions: test_dataloader.collate_fn must have side='left' "
                                 'and pack=False')
            given = {name: value for name, value in given.items() if name != 'labels'}
            ends = [self.tokenizer.convert_tokens_to_ids(token) for token in (CHAT_END, END_OF_TEXT)]
            tokens = self.network.generate(**given, max_new_tokens=self.max_new_tokens, do_sample=False, eos_token_id=ends,
                                           pad_token_id=ends[-1])
            new = tokens[:, given['input_ids'].shape[1]:]
            told = iter(self.tokenizer.batch_decode(new, skip_special_tokens=True))
        return [dict(row, prediction=None if 'problem' in row else next(told).strip()) for row in rows]
