"""Boxes of a batch as BEV masks: as each frame and group by itself, in chunks of any size."""

import pytest
import torch

from projects.geometry import BEVGrid, box_raster, pad_rows, rasterize_box_batch, rasterize_boxes

GRID = BEVGrid((-8.0, -4.0, -5.0, 8.0, 4.0, 3.0), (0.5, 0.5, 8.0), 1)


@pytest.mark.parametrize('chunk_cells', [box_raster.CHUNK_CELLS, 1])
def test_batch_equals_single(chunk_cells, monkeypatch):
    g = torch.Generator().manual_seed(0)
    frames = [torch.rand(n, 7, generator=g) * torch.tensor([18.0, 10, 1, 4, 2, 2, 7]) - torch.tensor([9.0, 5, 0, 0, 0, 0, 3])
              for n in (5, 0, 8)]
    groups = torch.rand(3, 2, 8, generator=g) > 0.5
    want = torch.stack([torch.stack([rasterize_boxes(boxes[one[:len(boxes)]], GRID) for one in group])
                        for boxes, group in zip(frames, groups)])
    monkeypatch.setattr(box_raster, 'CHUNK_CELLS', chunk_cells)
    boxes, valid = pad_rows(frames)
    assert torch.equal(rasterize_box_batch(boxes, groups & valid[:, None], GRID), want) and want[[0, 2]].any()
    assert torch.equal(rasterize_box_batch(boxes, groups[:, 0] & valid, GRID), want[:, 0])
