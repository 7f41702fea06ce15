"""Memory network `image`: the published XMem. In: normalised RGB frames, masks, sensory state. Out: keys, values, masks.

Cheng and Schwing, "XMem: Long-Term Video Object Segmentation with an Atkinson-Shiffrin Memory Model", ECCV 2022. Parameter
names and shapes are those of the official multi-object checkpoint. All methods are stateless and batched: B clips, K
objects each; h = H / 16 and w = W / 16.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from projects.geometry import full_precision

from ..bev_network import SensoryUpdate, join_agents, others_of
from .blocks import DecoderSensoryUpdate, FeatureFusion, Upsample
from .resnet import BasicBlock, Bottleneck, init_stages, make_stage

STRIDE = 16
"""Frame pixels for each memory cell along each axis."""


def aggregate(prob: Tensor) -> Tensor:
    """Independent object probabilities (B, K, H, W) -> (B, 1 + K, H, W) that sum to 1, background first.

    Background is the probability that no object is there; the odds of all are then normalised. Always float32: half
    precision has no number just under 1.
    """
    prob = prob.float()
    prob = torch.cat([(1 - prob).prod(dim=1, keepdim=True), prob], dim=1).clamp(1e-7, 1 - 1e-7)
    return torch.log(prob / (1 - prob)).softmax(dim=1)


class KeyEncoder(nn.Module):
    """ResNet-50 up to stride 16: (B, 3, H, W) -> f16 (B, 1024, h, w), f8 (B, 512, 2h, 2w), f4 (B, 256, 4h, 4w)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.res2 = make_stage(Bottleneck, 64, 64, count=3, stride=1)
        self.layer2 = make_stage(Bottleneck, 256, 128, count=4, stride=2)
        self.layer3 = make_stage(Bottleneck, 512, 256, count=6, stride=2)
        init_stages(self)

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(frame))), 3, stride=2, padding=1)
        f4 = self.res2(x)
        f8 = self.layer2(f4)
        return self.layer3(f8), f8, f4


class KeyProjection(nn.Module):
    """f16 (B, 1024, h, w) -> key (B, CK, h, w), shrinkage (B, 1, h, w) >= 1, selection (B, CK, h, w) in 0..1."""

    def __init__(self, in_channels: int, key_dim: int) -> None:
        super().__init__()
        self.key_proj = nn.Conv2d(in_channels, key_dim, 3, padding=1)
        self.d_proj = nn.Conv2d(in_channels, 1, 3, padding=1)
        self.e_proj = nn.Conv2d(in_channels, key_dim, 3, padding=1)
        nn.init.orthogonal_(self.key_proj.weight)
        nn.init.zeros_(self.key_proj.get_parameter('bias'))

    @full_precision  # rounded keys would spoil the similarities
    def forward(self, f16: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        precise = f16.float()
        return self.key_proj(precise), self.d_proj(precise).square() + 1, self.e_proj(precise).sigmoid()


class ValueEncoder(nn.Module):
    """ResNet-18 up to stride 16 on [frame, own mask, other masks], fused with f16; and the deep sensory update."""

    def __init__(self, f16_channels: int, value_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(5, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = make_stage(BasicBlock, 64, 64, count=2, stride=1)
        self.layer2 = make_stage(BasicBlock, 64, 128, count=2, stride=2)
        self.layer3 = make_stage(BasicBlock, 128, 256, count=2, stride=2)
        init_stages(self)
        self.fuser = FeatureFusion(f16_channels, 256, value_dim)
        self.hidden_reinforce = SensoryUpdate(value_dim, hidden_dim)

    def forward(self, frame: Tensor, f16: Tensor, masks: Tensor) -> Tensor:
        """(B, 3, H, W), (B, 1024, h, w), (B, K, H, W) -> value (B, K, CV, h, w)."""
        x = join_agents(frame, torch.stack([masks, others_of(masks)], dim=2))
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fuser(f16, x.unflatten(0, masks.shape[:2]))


class Decoder(nn.Module):
    """What memory makes of a frame: mask logits of each object, and the sensory update of every frame."""

    def __init__(self, f16_channels: int, value_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fuser = FeatureFusion(f16_channels, value_dim + hidden_dim, 512)
        self.hidden_update = DecoderSensoryUpdate((512, 256, 256 + 1), 256, hidden_dim)
        self.up_16_8 = Upsample(512, 512, 256)
        self.up_8_4 = Upsample(256, 256, 256)
        self.pred = nn.Conv2d(256, 1, 3, padding=1)

    def forward(
        self, f16: Tensor, f8: Tensor, f4: Tensor, readout: Tensor, sensory: Tensor, update_sensory: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """-> sensory (B, K, Ch, h, w), logits (B, K, H, W), features (B, K, 256, 4h, 4w)."""
        g16 = self.fuser(f16, torch.cat([readout, sensory], dim=2))
        g8 = self.up_16_8(f8, g16)
        g4 = self.up_8_4(f4, g8)
        logits = self.pred(F.relu(g4.flatten(0, 1))).unflatten(0, g4.shape[:2])  # B, K, 1, 4h, 4w
        if update_sensory:
            sensory = self.hidden_update.update(g16, g8, torch.cat([g4, logits], dim=2), sensory)
        return sensory, F.interpolate(logits[:, :, 0], scale_factor=4, mode='bilinear', align_corners=False), g4


class XMem(nn.Module):
    """The published network, multi-object. Call it in eval mode: the published one never trains its BatchNorms either.

    Args:
        key_dim: CK.
        value_dim: CV; at least 16.
        hidden_dim: channels Ch of the sensory state.
    """

    def __init__(self, key_dim: int = 64, value_dim: int = 512, hidden_dim: int = 64) -> None:
        super().__init__()
        if key_dim < 1 or value_dim < 16 or hidden_dim < 1:
            raise ValueError('XMem: key_dim and hidden_dim must be at least 1 and value_dim at least 16, got '
                             f'{key_dim}, {hidden_dim} and {value_dim}')
        self.key_dim, self.value_dim, self.hidden_dim = key_dim, value_dim, hidden_dim
        self.key_encoder = KeyEncoder()
        self.value_encoder = ValueEncoder(1024, value_dim, hidden_dim)
        self.key_proj = KeyProjection(1024, key_dim)
        self.decoder = Decoder(1024, value_dim, hidden_dim)
        for update in (self.value_encoder.hidden_reinforce, self.decoder.hidden_update):
            nn.init.xavier_normal_(update.transform.weight)

    def encode_key(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What a frame asks memory with, and is later found by.

        Args:
            frame: (B, 3, H, W) RGB, normalised by the ImageNet statistics; H and W multiples of 16.

        Returns:
            key (B, CK, h, w), shrinkage (B, 1, h, w), selection (B, CK, h, w), float32 even under autocast; and the
            features f16 (B, 1024, h, w), f8 (B, 512, 2h, 2w), f4 (B, 256, 4h, 4w).
        """
        if frame.dim() != 4 or frame.shape[1] != 3 or frame.shape[2] % STRIDE or frame.shape[3] % STRIDE:
            raise ValueError(f'XMem takes frames (B, 3, H, W) with H and W multiples of {STRIDE}, got {tuple(frame.shape)}: '
                             'pad them first')
        f16, f8, f4 = self.key_encoder(frame)
        return *self.key_proj(f16), f16, f8, f4

    def encode_value(
        self, frame: Tensor, f16: Tensor, sensory: Tensor, masks: Tensor, deep_update: bool
    ) -> tuple[Tensor, Tensor]:
        """What is remembered of a frame.

        Args:
            frame: (B, 3, H, W), as for `encode_key`.
            f16: (B, 1024, h, w).
            sensory: (B, K, Ch, h, w).
            masks: (B, K, H, W) in 0..1, without background.
            deep_update: whether the sensory state takes the value in.

        Returns:
            value (B, K, CV, h, w), and the sensory state: the new one, or the given one without deep update.
        """
        value = self.value_encoder(frame, f16, masks)
        if deep_update:
            update = self.value_encoder.hidden_reinforce
            sensory = update(value.flatten(0, 1), sensory.flatten(0, 1)).view_as(sensory)
        return value, sensory

    def segment(
        self, f16: Tensor, f8: Tensor, f4: Tensor, readout: Tensor, sensory: Tensor, update_sensory: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decodes what was read from memory.

        Args:
            f16, f8, f4: from `encode_key`.
            readout: (B, K, CV, h, w).
            sensory: (B, K, Ch, h, w).
            update_sensory: whether the sensory state takes this frame in.

        Returns:
            sensory state (the given one without update), logits (B, K, H, W) of each object by itself, and probabilities
            (B, 1 + K, H, W) over background and objects.
        """
        sensory, logits, _ = self.decoder(f16, f8, f4, readout, sensory, update_sensory)
        return sensory, logits, aggregate(logits.float().sigmoid())
