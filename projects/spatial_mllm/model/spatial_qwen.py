"""Spatial: model. In: tokens, pixels, position ids and a scene. Out: logits, of Qwen2.5-VL or Qwen3-VL with geometry and poses.

The networks are the library's: a checkpoint folder of theirs loads, and what is saved here loads there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_multimodal_rotary_pos_emb
from transformers.models.qwen3_vl.modeling_qwen3_vl import apply_rotary_pos_emb

from .connectors import Connector, build_connector, put_before_steps
from .pose_attention import AttentionShape, BoundPoses, PoseAttention, PosePlan, PoseSettings
from .poses import Scene
from .small_vit import SmallViT

DEFAULT_SCALE = 1 / 25
"""What a learned scale of translations starts with, per metre."""
Base: Any = nn.Module
Seen = tuple[Tensor, Any, list[Tensor]]
"""Where vision tokens stand (B, n), the tokens (M, D), and those of deeper layers."""


class SpatialMixin(Base):
    """Adds to a library's class what `config.spatial` says.

    `pose`: PoseSettings. `connector`: see `build_connector`. `encoder`: settings of a SmallViT, which makes the geometry
    that the connector reads.

    Position ids are always given, never the library's own.
    """

    interleaved: bool
    library_class: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.loss_type = 'ForCausalLM'  # which the library reads from the class's name
        spatial = dict(getattr(config, 'spatial', None) or {})
        unknown = sorted(set(spatial) - {'pose', 'connector', 'encoder'})
        if unknown:
            raise ValueError(f'spatial: unknown parts {unknown}; known are pose, connector and encoder')
        self.connector = build_connector(spatial.get('connector'), config.text_config.hidden_size)
        self.encoder = None if spatial.get('encoder') is None else self._small_vit(spatial['encoder'])
        self.pose_plan: PosePlan | None = None
        self.pose_encoding: Any = None
        if spatial.get('pose') is not None:
            self._add_poses(PoseSettings(**spatial['pose']))

    def _small_vit(self, settings: Mapping[str, Any]) -> SmallViT:
        if self.connector is None or self.connector.needs != 'geometry':
            raise ValueError('spatial.encoder: makes geometry, which no connector reads; add a connector of type add or cat')
        vision = self.config.vision_config
        row = vision.in_channels * vision.temporal_patch_size * vision.patch_size ** 2
        return SmallViT(row, merge=vision.spatial_merge_size, **settings)

    def _add_poses(self, settings: PoseSettings) -> None:
        layers = self.model.language_model.layers
        chosen = range(len(layers)) if settings.layers is None else settings.layers
        if max(chosen) >= len(layers):
            raise ValueError(f'pose.layers={tuple(chosen)}: the model has {len(layers)} layers')
        self.pose_plan = PosePlan(settings, self.attention_shape(self.config.text_config))
        self.pose_encoding = self.pose_plan.encoding()
        for number in chosen:
            layers[number].self_attn = PoseAttention(layers[number].self_attn, self.pose_plan)

    def attention_shape(self, text: Any) -> AttentionShape:
        """Of a text config."""
        head_dim = getattr(text, 'head_dim', None) or text.hidden_size // text.num_attention_heads
        sections = list(text.rope_scaling['mrope_section'])
        rotate = (apply_rotary_pos_emb if self.interleaved
                  else partial(apply_multimodal_rotary_pos_emb, mrope_section=sections))
        return AttentionShape(text.num_attention_heads, text.num_key_value_heads, head_dim, tuple(sections), self.interleaved,
                              rotate)

    # -- the pass ---------------------------------------------------------------------------------------------------------
    def forward(self, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor | None = None,
                pixel_values_videos: Tensor | None = None, video_grid_thw: Tensor | None = None,
                pixel_values: Tensor | None = None, image_grid_thw: Tensor | None = None, video_tokens: Tensor | None = None,
                scene: Scene | None = None, labels: Tensor | None = None, past_key_values: Any = None,
                cache_position: Tensor | None = None, use_cache: bool = False, logits_to_keep: int = 0,
                **kwargs: Any) -> CausalLMOutputWithPast:
        """Logits (B, n, vocabulary), and the loss where there are labels.

        Args:
            input_ids: (B, n) of new tokens.
            position_ids: (3, B, n) (see processing/position_ids.py), or (4, 1, n) with the places in each sample first, for
                a row that holds several samples.
            attention_mask: (B, n with the cached), 0 where padding stands; None for such a row.
            pixel_values_videos, video_grid_thw, pixel_values, image_grid_thw: patch rows and grids (see processing/patches.py).
            video_tokens: (M, D), what `look` made of the videos before, in place of their pixels; Qwen2.5-VL only.
            scene: poses and geometry of the videos.
            labels: (B, n), -100 where no answer is expected.
            past_key_values, cache_position, use_cache, logits_to_keep: the library's.
            kwargs: what the library's layers take.

        Raises:
            ValueError: the model wants poses or geometry and the scene has none.
        """
        if position_ids.shape[0] == 3 and attention_mask is None and past_key_values is None:
            attention_mask = torch.ones_like(input_ids)  # else the library takes a jump of the time ids for another sample
        seen: list[Seen] = []
        if pixel_values is not None:
            seen.append((input_ids == self.config.image_token_id, *self.look(pixel_values, image_grid_thw)))
        if pixel_values_videos is not None or video_tokens is not None:
            tokens, deeper = ((video_tokens, []) if pixel_values_videos is None
                              else self.look(pixel_values_videos, video_grid_thw))
            if self.connector is not None:
                known = (self.encoder(pixel_values_videos, video_grid_thw.tolist())  # type: ignore[union-attr]
                         if self.encoder is not None else self._known(self.connector.needs, scene))
                tokens, deeper = self._connected(self.connector, tokens, deeper, known, video_grid_thw)
            seen.append((input_ids == self.config.video_token_id, tokens, deeper))
        embeds, deep = self._placed(input_ids, seen)
        if self.pose_plan is not None:
            filmed = pixel_values_videos is not None or video_tokens is not None
            kwargs['pose'] = self._bind(self.pose_plan, scene, filmed, embeds.device)
        outputs = self.model.language_model(
            inputs_embeds=embeds, position_ids=position_ids, attention_mask=attention_mask, past_key_values=past_key_values,
            cache_position=cache_position, use_cache=use_cache, **deep, **{**kwargs, 'return_dict': True})
        logits = self.lm_head(outputs.last_hidden_state[:, slice(-logits_to_keep, None) if logits_to_keep else slice(None)])
        loss = None if labels is None else self.loss_function(
            logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=outputs.past_key_values,
                                      hidden_states=outputs.hidden_states, attentions=outputs.attentions)

    def look(self, pixels: Tensor, grid: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Patch rows and their grids -> the tower's tokens (M, D), and those of its deeper layers (Qwen3-VL)."""
        found = self.model.visual(pixels.to(self.model.visual.dtype), grid_thw=grid)
        return found if self.interleaved else (found, [])

    def _placed(self, input_ids: Tensor, seen: list[Seen]) -> tuple[Tensor, dict[str, Any]]:
        """Embeddings with vision tokens in the place of their placeholders, and what Qwen3-VL adds in deeper layers."""
        embeds = self.get_input_embeddings()(input_ids)
        if not seen:
            return embeds, {}
        for mask, tokens, _ in seen:
            if int(mask.sum()) != len(tokens):
                adds = self.connector is not None and self.connector.adds_tokens
                raise ValueError(f'{int(mask.sum())} placeholder tokens for {len(tokens)} vision tokens; camera_tokens '
                                 f'must be {adds}, as the connector adds {"a token" if adds else "none"} to a grid step')
            embeds = embeds.masked_scatter(mask[..., None], tokens.to(embeds.dtype))
        if not self.interleaved:
            return embeds, {}
        anywhere = torch.stack([mask for mask, _, _ in seen]).any(0)
        layers = []
        for parts in zip(*(deeper for _, _, deeper in seen)):
            layer = torch.zeros_like(embeds)
            for (mask, _, _), part in zip(seen, parts):
                layer = layer.masked_scatter(mask[..., None], part.to(layer.dtype))
            layers.append(layer[anywhere])
        return embeds, dict(visual_pos_masks=anywhere, deepstack_visual_embeds=layers)

    def _known(self, needs: str, scene: Scene | None) -> Tensor:
        """What the connector reads: geometry (M, C) of each video token, or the camera (S, C) of each grid step."""
        known = None if scene is None else getattr(scene, needs)
        if known is None:
            raise ValueError(f"the connector reads a scene's {needs}, and there is none: give a geometry source, or load the "
                             "model with connector=dict(type='none')")
        return known

    def _connected(self, connector: Connector, tokens: Any, deeper: list[Tensor], known: Tensor,
                   grid: Any) -> tuple[Tensor, list[Tensor]]:
        """Vision tokens (M, D) and those of deeper layers after the connector."""
        if connector.needs == 'geometry':
            return connector(tokens, known), deeper
        steps, height, width = grid.unbind(1)
        per_step = (height * width // self.model.visual.spatial_merge_size ** 2).repeat_interleave(steps)
        if not connector.adds_tokens:
            return connector(tokens, known.repeat_interleave(per_step, dim=0)), deeper
        firsts = connector(tokens, known)
        return (put_before_steps(tokens, firsts, per_step),
                [put_before_steps(one, torch.zeros_like(firsts), per_step) for one in deeper])

    def _bind(self, plan: PosePlan, scene: Scene | None, seen: bool, device: torch.device) -> BoundPoses:
        if plan.settings.mode == 'still':
            return plan.bind(self.pose_encoding, None, device)
        if seen and scene is None:
            raise ValueError('the model takes poses into its attention, but this video has none: give a scene, or load the '
                             'model without spatial.pose')
        return plan.bind(self.pose_encoding, None if scene is None else scene.views(), device)

    # -- generation -------------------------------------------------------------------------------------------------------
    def prepare_inputs_for_generation(self, input_ids: Tensor, position_ids: Tensor, cache_position: Tensor,
                                      attention_mask: Tensor | None = None, past_key_values: Any = None,
                                      use_cache: bool = True, pixel_values_videos: Tensor | None = None,
                                      video_grid_thw: Tensor | None = None, pixel_values: Tensor | None = None,
                                      image_grid_thw: Tensor | None = None, scene: Scene | None = None,
                                      logits_to_keep: int = 0) -> dict[str, Any]:
        """What the next step of the library's `generate` sees: all at first, then the newest token."""
        inputs = dict(attention_mask=attention_mask, past_key_values=past_key_values, use_cache=use_cache,
                      cache_position=cache_position, logits_to_keep=logits_to_keep)
        prompt = position_ids.shape[-1]
        if len(input_ids) != position_ids.shape[1]:
            raise ValueError('beams and several answers to one prompt are not supported: videos belong to rows')
        later = input_ids.shape[1] - prompt
        if later:
            start = position_ids.amax(dim=(0, 2))[:, None] + 1
            new = start + torch.arange(later, device=start.device)
            position_ids = torch.cat([position_ids, new.expand(3, -1, -1)], dim=-1)
        if past_key_values is None or past_key_values.get_seq_length() == 0:
            if scene is not None and later:
                scene = scene.longer(later)
            return dict(inputs, input_ids=input_ids, position_ids=position_ids, pixel_values_videos=pixel_values_videos,
                        video_grid_thw=video_grid_thw, pixel_values=pixel_values, image_grid_thw=image_grid_thw, scene=scene)
        return dict(inputs, input_ids=input_ids[:, cache_position], position_ids=position_ids[..., cache_position])

    # -- files ------------------------------------------------------------------------------------------------------------
    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """The library's; what the folder does not hold begins as its module says, not as the library fills layers."""
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        missing = info['missing_keys']
        for name, module in model.named_modules():
            if isinstance(module, (Connector, PoseAttention)) and any(key.startswith(f'{name}.') for key in missing):
                module.reset()
        if any(key.startswith('pose_encoding.') for key in missing):
            nn.init.constant_(model.pose_encoding.trans_scale, model.pose_plan.settings.trans_scale or DEFAULT_SCALE)
        return (model, info) if output_loading_info else model

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """The library's format, under the library's class name; config.json says `spatial` and the dtype that is written."""
        super().save_pretrained(save_directory, **kwargs)
        path = Path(save_directory) / 'config.json'
        if path.is_file():
            written = next(iter((kwargs.get('state_dict') or self.state_dict()).values())).dtype
            text = path.read_text().replace(f'"{type(self).__name__}"', f'"{self.library_class.__name__}"')
            path.write_text(re.sub(r'"dtype": "\w+"', f'"dtype": "{str(written).removeprefix("torch.")}"', text))


class SpatialQwen25(SpatialMixin, Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL (Bai et al., 2025)."""

    interleaved = False
    library_class = Qwen2_5_VLForConditionalGeneration


class SpatialQwen3(SpatialMixin, Qwen3VLForConditionalGeneration):
    """Qwen3-VL (2025)."""

    interleaved = True
    library_class = Qwen3VLForConditionalGeneration


FAMILIES: dict[str, Any] = dict(qwen2_5_vl=SpatialQwen25, qwen3_vl=SpatialQwen3)
"""model_type of a checkpoint folder -> our class."""
