"""Frames are decoded where they are asked for, and folders sort by number."""

import cv2
import numpy as np
import pytest

from projects.sample_frames.pixels import FrameFiles, VideoFile


def test_a_video_gives_the_frames_asked_for(make_video):
    video = VideoFile(make_video())
    assert video.num_frames == 12 and video.stamps_s.tolist() == pytest.approx(np.arange(12) / 10)
    images = video.read([7, 2, 11])
    assert sorted(images) == [2, 7, 11] and all(image.shape == (32, 48, 3) for image in images.values())
    assert all(abs(float(image.mean()) - 20 * frame) < 3 for frame, image in images.items())


def test_what_is_no_video_and_one_that_is_cut(make_video, tmp_path):
    (tmp_path / 'no.mp4').write_bytes(b'not a video')
    with pytest.raises(ValueError, match='no.mp4 is not a readable video'):
        VideoFile(tmp_path / 'no.mp4')
    path = make_video(frames=60)
    video, whole = VideoFile(path), path.read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ValueError, match=r'walk.avi is cut or damaged: its header says \d+ frames, \d+ can|not a readable'):
        VideoFile(path)
    with pytest.raises(ValueError, match='walk.avi: frame 55 of 60 cannot be decoded'):
        video.read([3, 55])


def test_a_header_that_counts_a_frame_too_many_or_none(make_video, monkeypatch):
    original = cv2.VideoCapture

    class Capture:
        said = 13

        def __init__(self, path):
            self.capture = original(path)

        def __getattr__(self, name):
            return getattr(self.capture, name)

        def get(self, what):
            return self.said if what == cv2.CAP_PROP_FRAME_COUNT else self.capture.get(what)

    monkeypatch.setattr(cv2, 'VideoCapture', Capture)
    assert VideoFile(make_video()).num_frames == 12
    Capture.said = -1
    assert VideoFile(make_video()).num_frames == 12


def test_a_folder_sorts_by_number_not_by_text(tmp_path):
    for number in (10000, 9999, 2, 10):
        cv2.imwrite(str(tmp_path / f'frame_{number}.png'), np.full((4, 6, 3), number % 251, np.uint8))
    (tmp_path / 'notes.txt').write_text('no frame')
    frames = FrameFiles.of_folder(tmp_path)
    assert list(frames.names) == ['frame_2.png', 'frame_10.png', 'frame_9999.png', 'frame_10000.png']
    assert int(frames.read([3])[3].mean()) == 10000 % 251


def test_names_of_frames_may_be_odd(tmp_path):
    for name in ('1²3.png', '1²20.png', 'a1.png', 'a01.png', '._a1.png', 'A 7.PNG'):
        (tmp_path / name).touch()
    assert list(FrameFiles.of_folder(tmp_path).names) == ['1²3.png', '1²20.png', 'A 7.PNG', 'a01.png', 'a1.png']


def test_an_empty_folder_and_a_broken_frame(tmp_path):
    with pytest.raises(ValueError, match='holds no frames: no file in it ends with one of .jpg'):
        FrameFiles.of_folder(tmp_path)
    (tmp_path / '1.jpg').write_bytes(b'broken')
    with pytest.raises(OSError, match='1.jpg'):
        FrameFiles.of_folder(tmp_path).read([0])
