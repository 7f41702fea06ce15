"""Image encoders that mmdet lacks."""

from .cpfpn import CPFPN
from .vovnet import VoVNet

__all__ = ['CPFPN', 'VoVNet']
