"""Replays the additive connector of Spatial-MLLM under its published names. tests/reference/README.md tells the arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from replays.compare import difference, refuse_unknown

from projects.spatial_mllm.model.connectors import AddConnector, pack_tokens

TOLERANCE = 1e-5


@torch.no_grad()
def replay(path: Path, device: str = 'cpu') -> list[tuple[str, float]]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: torch.from_numpy(archive[name]) for name in archive.files}
    encoder_dim, dim, layer, temporal, merge, special, count = arrays['settings'].tolist()
    layers = sum(name.startswith('video0_layer') for name in arrays)
    videos = [arrays[f'video{number}_layer{layer % layers}'][:, special:].to(device) for number in range(count)]
    packed = pack_tokens(videos, arrays['grid_thw'].tolist(), temporal, merge)
    connector = AddConnector(merge * merge * temporal * 2 * encoder_dim, dim)
    connector.load_state_dict({name[2:]: value for name, value in arrays.items() if name.startswith('w_')})
    connector.to(device)
    ours = dict(packed=packed, normed=connector.ln_q(packed), out=connector(arrays['video_embeds'].to(device), packed))
    refuse_unknown(arrays, ours, r'settings|grid_thw|video_embeds|w_.*|video\d+_layer\d+')
    return [(name, difference(value.cpu().numpy(), arrays[name].numpy(), 0 if name == 'packed' else TOLERANCE))
            for name, value in ours.items()]
