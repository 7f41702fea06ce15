"""Unit: PNG round trip, animated strip, contact sheet; broken images are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from projects.memfusion.visualization import write_png, write_strip
from projects.memfusion.visualization.image_files import contact_sheet, read_rgb


def picture(value: int) -> np.ndarray:
    image = np.zeros((60, 80, 3), dtype=np.uint8)
    image[:, :, 0] = value
    return image


def test_png_round_trip_keeps_rgb(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = write_png(tmp_path / 'new' / 'a.png', image)
    assert (read_rgb(path) == image).all()
    assert [file.name for file in path.parent.iterdir()] == ['a.png']


def test_strip_and_sheet(tmp_path: Path) -> None:
    frames = [picture(50 * index) for index in range(5)]
    gif, sheet = write_strip(frames, tmp_path / 'scene.gif', frame_ms=200)
    with Image.open(gif) as animation:
        assert animation.n_frames == 5 and animation.info['duration'] == 200
        for index in range(5):
            animation.seek(index)
            assert abs(int(np.asarray(animation.convert('RGB'))[30, 40, 0]) - 50 * index) < 12
    assert sheet.name == 'scene_sheet.png'
    image = read_rgb(sheet)
    assert image.shape == (120, 240, 3)  # 3 + 2, not 4 + 1
    assert image[30, 200, 0] == 100 and image[90, 40, 0] == 150
    assert contact_sheet(frames, max_width_px=120).shape == (60, 120, 3)


def test_strip_refuses_mixed_sizes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='one size'):
        write_strip([picture(0), picture(0)[:30]], tmp_path / 'a.gif')
    with pytest.raises(ValueError, match='one size'):
        write_strip([], tmp_path / 'a.gif')
    assert not list(tmp_path.iterdir())


def test_broken_images_are_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / 'whole.jpg')
    content = (tmp_path / 'whole.jpg').read_bytes()
    (tmp_path / 'cut.jpg').write_bytes(content[:len(content) // 2])
    (tmp_path / 'text.jpg').write_text('no image')
    for name in ('cut.jpg', 'text.jpg', 'absent.jpg'):
        with pytest.raises(OSError, match=name):
            read_rgb(tmp_path / name)
