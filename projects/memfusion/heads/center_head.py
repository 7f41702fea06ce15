"""CenterHead. In: BEV features [(N, C, H, W)]. Out: boxes in the LiDAR frame. mmdet3d's, with the heatmap bias set."""

from __future__ import annotations

from mmdet3d.models.dense_heads import CenterHead
from mmdet3d.registry import MODELS


@MODELS.register_module()
class InitCenterHead(CenterHead):
    """mmdet3d's CenterHead, except that `separate_head.init_bias` takes effect.

    mmdet3d keeps the task heads in a torch ModuleList, through which MMEngine's initialisation does not pass, so the
    bias is never written and training starts with half of all cells shouting "object". Only the bias is mended: the
    rest of SeparateHead's initialisation (Kaiming by fan-out on 1 to 3 output channels) would start the outputs at a
    standard deviation of 4. Parameter names are CenterHead's, so checkpoints load unchanged.
    """

    def init_weights(self) -> None:
        """Initialises as CenterHead does, then the heatmap biases."""
        super().init_weights()
        for head in self.task_heads:
            head.heatmap[-1].bias.data.fill_(head.init_bias)
