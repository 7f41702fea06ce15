"""Tiny twins of Qwen2.5-VL and Qwen3-VL, and a batch of two posed videos with questions for them."""

from types import SimpleNamespace

import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen3VLConfig, Qwen3VLForConditionalGeneration

from projects.spatial_mllm.model.poses import FramePoses, Scene
from projects.spatial_mllm.model.spatial_qwen import SpatialQwen3, SpatialQwen25
from projects.spatial_mllm.processing.position_ids import PositionRule, VisionBlocks, position_ids

IMAGE, VIDEO, START, END = 301, 302, 303, 304
SPECIAL = [IMAGE, VIDEO, START, END]
GRID = (3, 4, 4)
GEOMETRY_DIM, CAMERA_DIM = 24, 6
_VISION = dict(depth=2, hidden_size=32, intermediate_size=48, num_heads=2, patch_size=14, spatial_merge_size=2,
               temporal_patch_size=2, out_hidden_size=64)
_TEXT = dict(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2)
_IDS = dict(image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END)


def config_25(**spatial):
    config = Qwen2_5_VLConfig(
        text_config=dict(_TEXT, rope_scaling=dict(type='mrope', mrope_section=[2, 3, 3])),
        vision_config=dict(_VISION, window_size=56, fullatt_block_indexes=[1], tokens_per_second=2), **_IDS)
    config.spatial = spatial
    return config


def config_3(**spatial):
    config = Qwen3VLConfig(
        text_config=dict(_TEXT, head_dim=16, rope_scaling=dict(rope_type='default', mrope_section=[4, 2, 2])),
        vision_config=dict(_VISION, num_position_embeddings=64, deepstack_visual_indexes=[0]), **_IDS)
    config.spatial = spatial
    return config


FAMILIES = {
    'qwen2.5': SimpleNamespace(ours=SpatialQwen25, library=Qwen2_5_VLForConditionalGeneration, config=config_25, time='int'),
    'qwen3': SimpleNamespace(ours=SpatialQwen3, library=Qwen3VLForConditionalGeneration, config=config_3, time='frames'),
}


def random_poses(count, generator):
    """(count, 4, 4) float64 cam_from_world."""
    turn = torch.linalg.qr(torch.randn(count, 3, 3, dtype=torch.float64, generator=generator))[0]
    pose = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    pose[:, :3, :3] = turn * torch.linalg.det(turn)[:, None, None]
    pose[:, :3, 3] = torch.randn(count, 3, dtype=torch.float64, generator=generator)
    return pose


def tiny_batch(time, seed=0, camera_tokens=False):
    """Inputs of both models for two videos of 6 frames, and the scene of their 6 grid steps.

    `camera_tokens`: a token more for each step.
    """
    generator = torch.Generator().manual_seed(seed)
    each = 4 + camera_tokens
    block = [VIDEO] * each
    video = [START, *block * 3, END] if time != 'frames' else [token for _ in range(3) for token in (7, START, *block, END)]
    tokens = torch.tensor([[5, 6, *video, 8, 9, 10], [5, 7, *video, 8, 11, 12]])
    rule = PositionRule(IMAGE, VIDEO, time=time, camera_tokens=camera_tokens)
    places, _ = position_ids(tokens, rule, VisionBlocks(videos=[GRID, GRID], seconds=[1.0, 1.0]))
    pixels = torch.randn(2 * 48, 1176, generator=generator)
    step = torch.full_like(tokens, -1)
    for row in range(2):
        step[row, tokens[row] == VIDEO] = torch.arange(3).repeat_interleave(each) + 3 * row
    poses = torch.cat([FramePoses(random_poses(3, generator)).relative().cam_from_world for _ in range(2)])
    intrinsics = torch.tensor([[0.9, 0, 0.5], [0, 1.1, 0.5], [0, 0, 1]], dtype=torch.float64).expand(6, 3, 3)
    scene = Scene(step, FramePoses(poses, intrinsics), torch.randn(24, GEOMETRY_DIM, generator=generator),
                  torch.randn(6, CAMERA_DIM, generator=generator))
    inputs = dict(input_ids=tokens, position_ids=places, pixel_values_videos=pixels, video_grid_thw=torch.tensor([GRID, GRID]),
                  attention_mask=torch.ones_like(tokens))
    return inputs, scene
