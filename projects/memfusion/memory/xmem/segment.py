"""Inference of XMem on a clip. In: frames and the first frame's masks. Out: masks of every frame, in the frame's pixels.

The order of events of the published inference (Cheng and Schwing, ECCV 2022): read, decode, update the sensory state,
encode the value, write. Every frame is treated alike, the last one too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .memory_bank import MemoryBank
from .network import STRIDE, XMem, aggregate
from .settings import InferenceSettings


def pad_to_stride(image: Tensor, stride: int = STRIDE) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Pads (..., H, W) with zeros on all sides until both divide; an odd pixel goes right and below.

    Returns:
        the padded image, and the margins (left, right, top, bottom) in pixels.
    """
    rows, columns = -image.shape[-2] % stride, -image.shape[-1] % stride
    margins = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    return F.pad(image, margins), margins


def unpad(image: Tensor, margins: tuple[int, int, int, int]) -> Tensor:
    """Takes the margins of `pad_to_stride` off again."""
    left, right, top, bottom = margins
    return image[..., top:image.shape[-2] - bottom, left:image.shape[-1] - right]


class ClipSegmenter:
    """Segments one clip frame by frame; a new clip takes a new segmenter.

    Args:
        network: in any mode; each step runs it in eval mode and gives it back as it was.
        settings: the published ones by default.
        num_frames: length of the clip where it is known; settings that a short clip never feels are then not checked.

    Attributes:
        frame_index: of the next frame, from 0.
        sensory: (1, K, Ch, h, w) after the last step; None before the first.
        memory_sizes: elements in working and in long-term memory.
    """

    def __init__(
        self, network: XMem, settings: InferenceSettings | None = None, num_frames: int | None = None
    ) -> None:
        self.network = network
        self.settings = InferenceSettings() if settings is None else settings
        self.num_frames = num_frames
        self.bank = MemoryBank(self.settings)
        self.sensory: Tensor | None = None
        self.frame_index = 0
        self._frame_size: tuple[int, int] | None = None
        self._last_write = 0
        self._last_deep_update = -self.settings.deep_update_every

    @property
    def memory_sizes(self) -> tuple[int, int]:
        return self.bank.sizes

    @torch.no_grad()
    def step(self, frame: Tensor, mask: Tensor | None = None) -> Tensor:
        """Segments the next frame.

        Args:
            frame: (3, H, W) float RGB, normalised by the ImageNet statistics; any size, the same for all frames.
            mask: (K, H, W) in 0..1, all objects' masks. The first step needs it; given later, it replaces the prediction
                and is written to memory.

        Returns:
            (1 + K, H, W) float32 probabilities that sum to 1, background first.

        Raises:
            ValueError: the frame or the mask does not fit, the first mask is missing, or working memory is too small for
                `num_prototypes`.
        """
        self._check(frame, mask)
        device = next(self.network.parameters()).device
        training = [module for module in self.network.modules() if module.training]
        self.network.eval()  # one clip's batch statistics are not what the network learnt with
        try:
            return self._step(frame.to(device).float(), None if mask is None else mask.to(device).float())
        finally:
            for module in training:
                module.training = True

    def _step(self, frame: Tensor, mask: Tensor | None) -> Tensor:
        settings, now = self.settings, self.frame_index
        writes = mask is not None or now - self._last_write >= settings.mem_every
        together = settings.deep_update_every < 0  # deep updates come with written frames, and replace the normal ones
        deep = writes if together else now - self._last_deep_update >= settings.deep_update_every

        image, margins = pad_to_stride(frame[None])
        key, shrinkage, selection, f16, f8, f4 = self.network.encode_key(image)
        if mask is None:
            assert self.sensory is not None  # the first step came with a mask
            readout = self.bank.read(key, selection)
            self.sensory, _, prob = self.network.segment(
                f16, f8, f4, readout, self.sensory, update_sensory=not (together and deep))
        else:
            prob = aggregate(pad_to_stride(mask[None])[0])
            if self.sensory is None:
                self.sensory = key.new_zeros(1, mask.shape[0], self.network.hidden_dim, *key.shape[2:])
        if writes:
            value, self.sensory = self.network.encode_value(image, f16, self.sensory, prob[:, 1:], deep_update=deep)
            self.bank.write(key, shrinkage, selection, value)
            self._last_write = now
            if deep:
                self._last_deep_update = now
        self.frame_index += 1
        return unpad(prob[0], margins)

    def _check(self, frame: Tensor, mask: Tensor | None) -> None:
        if frame.dim() != 3 or frame.shape[0] != 3 or not frame.is_floating_point():
            raise ValueError(f'frame {self.frame_index} must be float (3, H, W), normalised by the ImageNet statistics, got '
                             f'{frame.dtype} {tuple(frame.shape)}')
        size = (frame.shape[1], frame.shape[2])
        if self._frame_size not in (None, size):
            raise ValueError(f'frame {self.frame_index} is {size}, but the clip began with {self._frame_size}: a clip has '
                             'frames of one size')
        if mask is None:
            if self.sensory is None:
                raise ValueError('the first frame needs a mask (K, H, W): it says which objects to follow')
        elif mask.dim() != 3 or mask.shape[0] < 1 or tuple(mask.shape[1:]) != size:
            raise ValueError(f'mask of frame {self.frame_index} must be (K, {size[0]}, {size[1]}) with K >= 1 objects, got '
                             f'{tuple(mask.shape)}')
        elif self.sensory is not None and self.sensory.shape[1] != mask.shape[0]:
            raise ValueError(f'mask of frame {self.frame_index} has {mask.shape[0]} objects, but the clip began with '
                             f'{self.sensory.shape[1]}: give all of them')
        if self._frame_size is None:
            self.settings.check_cells(-(-size[0] // STRIDE) * -(-size[1] // STRIDE), self.num_frames)
            self._frame_size = size


def segment_clip(
    network: XMem,
    frames: Tensor,
    first_mask: Tensor,
    *,
    mem_every: int = InferenceSettings.mem_every,
    deep_update_every: int = InferenceSettings.deep_update_every,
    top_k: int | None = InferenceSettings.top_k,
    enable_long_term: bool = InferenceSettings.enable_long_term,
    max_mid_term_frames: int = InferenceSettings.max_mid_term_frames,
    min_mid_term_frames: int = InferenceSettings.min_mid_term_frames,
    num_prototypes: int = InferenceSettings.num_prototypes,
    max_long_term_elements: int = InferenceSettings.max_long_term_elements,
) -> Tensor:
    """Follows objects through a clip, given their masks in its first frame. The settings: see `InferenceSettings`.

    Args:
        frames: (T, 3, H, W) float RGB, normalised by the ImageNet statistics; T >= 1, any H and W.
        first_mask: (K, H, W) in 0..1, K >= 1.

    Returns:
        (T, 1 + K, H, W) float32 probabilities that sum to 1, background first, on the network's device. The first row is
        the given mask with its background.

    Raises:
        ValueError: a setting, the frames or the mask are not usable.
    """
    if frames.dim() != 4 or frames.shape[0] < 1:
        raise ValueError(f'frames must be (T, 3, H, W) with T >= 1, got {tuple(frames.shape)}')
    if first_mask is None:
        raise ValueError('first_mask is missing: (K, H, W), the objects to follow, in the first frame')
    settings = InferenceSettings(
        mem_every=mem_every, deep_update_every=deep_update_every, top_k=top_k, enable_long_term=enable_long_term,
        max_mid_term_frames=max_mid_term_frames, min_mid_term_frames=min_mid_term_frames,
        num_prototypes=num_prototypes, max_long_term_elements=max_long_term_elements)
    segmenter = ClipSegmenter(network, settings, num_frames=frames.shape[0])
    first, *others = frames
    return torch.stack([segmenter.step(first, first_mask), *[segmenter.step(frame) for frame in others]])
