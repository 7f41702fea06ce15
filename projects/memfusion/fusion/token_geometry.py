"""FuTr++, stage geometry. In: camera tokens, corrected rig. Out: tokens that know where they look, in the LiDAR frame."""

from __future__ import annotations

from dataclasses import replace

from projects.encodings import token_geometry
from projects.memfusion.structures import Calibration

from .fusion_state import CameraTokens


class TokenGeometry(token_geometry.TokenGeometry):
    """The encoding as a stage: of tokens instead of tensors, of a rig instead of its views."""

    def forward(self, tokens: CameraTokens, calibration: Calibration) -> CameraTokens:  # type: ignore[override]
        """The tokens with the encoding added to their features; raises as the encoding does."""
        features = super().forward(tokens.features, tokens.uv_px, tokens.valid, calibration.views())
        return replace(tokens, features=features)
