"""Losses and heads that mmdet3d lacks."""

from .center_head import InitCenterHead
from .center_losses import SyncGaussianFocalLoss, SyncL1Loss
from .occupancy_loss import OccupancyLoss

__all__ = ['InitCenterHead', 'OccupancyLoss', 'SyncGaussianFocalLoss', 'SyncL1Loss']
