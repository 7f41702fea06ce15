"""Spatial: training. In: a model. Out: low-rank adapters (peft) in its attention, or its weights with them merged."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_TARGETS = ('q_proj', 'k_proj', 'v_proj', 'o_proj')


def add_lora(model: Any, settings: Mapping[str, Any]) -> None:
    """Adapters in the language model's projections, in place.

    Args:
        model: a SpatialQwen.
        settings: of peft's LoraConfig, e.g. dict(r=16, lora_alpha=32).

    Raises:
        ImportError: peft is not installed.
    """
    try:
        peft = importlib.import_module('peft')  # not among the requirements
    except ImportError as error:
        raise ImportError("model.tune='lora' needs peft, which is not installed: pip install peft==0.17.1") from error
    peft.inject_adapter_in_model(peft.LoraConfig(**{'target_modules': list(_TARGETS), **settings}), model.model.language_model)


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model under the library's names; adapters are added to what they adapt."""
    deltas: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if hasattr(module, 'get_delta_weight'):
            for adapter in module.active_adapters:
                delta = module.get_delta_weight(adapter).detach()
                deltas[name] = deltas.get(name, 0) + delta
    state = {}
    for name, value in model.state_dict().items():
        if 'lora_' in name:
            continue
        plain = name.replace('.base_layer', '')
        owner = plain.removesuffix('.weight')
        state[plain] = value + deltas[owner].to(value.dtype) if plain.endswith('.weight') and owner in deltas else value
    return state
