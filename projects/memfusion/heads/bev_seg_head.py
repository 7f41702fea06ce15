"""Heads. In: BEV features (V, C, H, W), x along W, y along H. Out: probability per class group and cell; losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.model import bias_init_with_prob
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from projects.geometry import BEVGrid, pad_rows, rasterize_box_batch
from projects.memfusion.losses.occupancy_loss import OccupancyLoss
from projects.memfusion.structures import Calibration

from .task_head import TaskHead

NO_CLASS, NO_MEMBER = -1, -2  # a box that is padding, a place in a group that is empty


@MODELS.register_module()
class BEVSegHead(TaskHead):
    """BEV segmentation, or occupancy where one group holds all classes. The truth is the ground area of the boxes.

    Args:
        in_channels: C of the BEV features.
        classes: names of the detection classes, in the order of their labels.
        groups: K channels, name -> names of the classes in it, e.g. dict(vehicle=['car', 'truck'], person=['pedestrian']).
        point_cloud_range: what the BEV covers, metres.
        channels: width of the head.
        field: of the samples, where predictions go; two heads beside each other need two.
        loss_seg: loss of logits and targets (V x K, 1, H, W), every group of every frame by itself.
        loss_weight: multiplies the losses.
    """

    needs = 'bev'
    grid_keys = dict(point_cloud_range='point_cloud_range')
    labels_of: Tensor

    def __init__(
        self,
        in_channels: int,
        classes: Sequence[str],
        groups: Mapping[str, Sequence[str]],
        point_cloud_range: Sequence[float],
        channels: int = 64,
        field: str = 'pred_bev_seg',
        loss_seg: dict | None = None,
        loss_weight: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(loss_weight, init_cfg)
        if not groups:
            raise ValueError('BEVSegHead.groups is empty: name at least one group of classes')
        for name, members in groups.items():
            unknown = [member for member in members if member not in classes]
            if unknown or not members:
                raise ValueError(f'BEVSegHead.groups[{name!r}]: {unknown or "no class"} given; classes are {list(classes)}')
        self.group_names, self.field = tuple(groups), field
        labels = [torch.tensor([list(classes).index(member) for member in members]) for members in groups.values()]
        table = pad_sequence(labels, batch_first=True, padding_value=NO_MEMBER)
        self.register_buffer('labels_of', table, persistent=False)  # (K, members at most)
        self.point_cloud_range = tuple(float(v) for v in point_cloud_range)
        first, last = nn.Conv2d(in_channels, channels, 3, padding=1), nn.Conv2d(channels, len(groups), 1)
        nn.init.constant_(last.get_parameter('bias'), bias_init_with_prob(0.01))  # few cells belong to anything
        self.layers = nn.Sequential(first, nn.ReLU(inplace=True), last)
        self.loss_seg = OccupancyLoss() if loss_seg is None else MODELS.build(loss_seg)

    def forward(self, bev: Tensor) -> Tensor:
        """(V, C, H, W) -> logits (V, K, H, W)."""
        return self.layers(bev)

    def compute_losses(self, feats: Tensor, samples: Sequence[Det3DDataSample],
                       calibration: Calibration | None = None) -> dict[str, Tensor]:
        """loss_bev_seg_bce, loss_bev_seg_dice: means over frames and groups of all ranks; see TaskHead.loss."""
        logits = self(feats).float()
        target = self.targets(samples, logits)
        losses = self.loss_seg(logits.flatten(0, 1)[:, None], target.flatten(0, 1)[:, None])
        # OccupancyLoss also serves the memory, under these names.
        return {name.replace('loss_occ', 'loss_bev_seg'): value for name, value in losses.items()}

    @torch.no_grad()
    def predict(self, feats: Tensor, samples: Sequence[Det3DDataSample], calibration: Calibration | None = None) -> None:
        """Sets `field`: (K, H, W) float32 probabilities, groups in the config's order."""
        for sample, probability in zip(samples, self(feats).float().sigmoid(), strict=True):
            sample.set_field(probability, self.field)

    @torch.no_grad()
    def targets(self, samples: Sequence[Det3DDataSample], like: Tensor) -> Tensor:
        """Boxes of V frames, in their augmented LiDAR frames -> (V, K, H, W) in `like`'s shape, dtype and device."""
        if not samples:
            return torch.zeros_like(like)
        truths = [sample.gt_instances_3d for sample in samples]
        boxes, there = pad_rows([truth.bboxes_3d.tensor[:, :7] for truth in truths])
        labels = pad_rows([torch.as_tensor(truth.labels_3d) for truth in truths])[0].masked_fill(~there, NO_CLASS)
        boxes, labels = boxes.to(like.device), labels.to(like.device)
        members = (labels[:, None, :, None] == self.labels_of[None, :, None, :]).any(-1)  # (V, K, n)
        return rasterize_box_batch(boxes, members, BEVGrid.of_shape(self.point_cloud_range, like.shape[-2:])).to(like.dtype)
