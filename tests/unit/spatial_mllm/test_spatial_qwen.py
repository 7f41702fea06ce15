"""Tiny twins: ours and the library's agree where nothing is added; poses, geometry and files do what they should."""

from dataclasses import replace

import pytest
import torch
import transformers
from tiny_qwen import CAMERA_DIM, FAMILIES, GEOMETRY_DIM, SPECIAL, VIDEO, config_25, random_poses, tiny_batch
from transformers import DynamicCache

from projects.spatial_mllm.model.pose_attention import AttentionShape, PoseAttention, PosePlan, PoseSettings
from projects.spatial_mllm.model.poses import FramePoses
from projects.spatial_mllm.model.small_vit import SmallViT
from projects.spatial_mllm.model.spatial_qwen import SpatialQwen3, SpatialQwen25

GREEDY = dict(max_new_tokens=4, do_sample=False, suppress_tokens=SPECIAL, output_logits=True, return_dict_in_generate=True)
APPEND, REPLACE = dict(pose=dict(mode='append')), dict(pose=dict(mode='replace'))
ADD = dict(connector=dict(type='add', geometry_dim=GEOMETRY_DIM))
NO_OPS = {
    'plain': {}, 'append': APPEND,
    'some heads of a layer': dict(pose=dict(mode='append', heads=(2, 3), layers=(1,), channels=8)),
    'add': ADD, 'both': {**APPEND, **ADD}, 'camera token': dict(connector=dict(type='camera_token', geometry_dim=CAMERA_DIM)),
}
CHANGES = {
    'replace': REPLACE, 'values of some heads': dict(pose=dict(mode='replace', values=True, heads=(0, 1))),
    'CaPE': dict(pose=dict(mode='replace', convention='eschernet', intrinsics=False)), 'append': APPEND,
    'bias': dict(pose=dict(mode='bias', trans_scale=1.0)), 'bias of some heads': dict(pose=dict(mode='bias', heads=(2, 3))),
    'encoder': dict(encoder=dict(dim=12), connector=dict(type='add', geometry_dim=48)),
    'still': dict(pose=dict(mode='still')), 'cat': dict(connector=dict(type='cat', geometry_dim=GEOMETRY_DIM)),
}
transformers.logging.set_verbosity_error()


@pytest.fixture(scope='module', params=FAMILIES)
def twin(request, tmp_path_factory):
    """A family, the library's model, its folder, a batch and a scene."""
    family = FAMILIES[request.param]
    torch.manual_seed(0)
    library = family.library(family.config()).eval()
    folder = tmp_path_factory.mktemp('twin')
    library.save_pretrained(folder)
    return family, library, folder, *tiny_batch(family.time)


def loaded(family, folder, spatial, train_seed=None):
    """Our model; with `train_seed` what is new is no longer zero."""
    model = family.ours.from_pretrained(folder, config=family.config(**spatial)).eval()
    if train_seed is not None:
        generator = torch.Generator().manual_seed(train_seed)
        for name, parameter in model.named_parameters():
            if 'pose' in name or 'connector' in name or name.startswith('encoder'):
                parameter.data.normal_(std=0.2, generator=generator)
    return model


@torch.no_grad()
@pytest.mark.parametrize('spatial', NO_OPS.values(), ids=NO_OPS)
def test_what_is_new_changes_nothing_before_training(twin, spatial):
    family, library, folder, inputs, scene = twin
    model = loaded(family, folder, spatial)
    torch.testing.assert_close(model(**inputs, scene=scene).logits, library(**inputs).logits, rtol=0, atol=1e-6)


@torch.no_grad()
def test_generation_is_the_librarys_where_nothing_is_added(twin):
    family, library, folder, inputs, scene = twin
    theirs = library.generate(**{name: value for name, value in inputs.items() if name != 'position_ids'}, **GREEDY)
    ours = loaded(family, folder, APPEND).generate(**inputs, scene=scene, **GREEDY)
    assert torch.equal(ours.sequences, theirs.sequences)


@torch.no_grad()
@pytest.mark.parametrize('spatial', CHANGES.values(), ids=CHANGES)
def test_generation_with_a_cache_equals_the_full_pass(twin, spatial):
    family, library, folder, inputs, scene = twin
    model = loaded(family, folder, spatial, train_seed=1)
    cached = model.generate(**inputs, scene=scene, **GREEDY)
    full = model.generate(**inputs, scene=scene, use_cache=False, **GREEDY)
    assert torch.equal(cached.sequences, full.sequences)
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(full.logits), rtol=0, atol=1e-5)
    assert (cached.logits[0] - library(**inputs).logits[:, -1]).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize('spatial', [REPLACE, APPEND], ids=['replace', 'append'])
def test_the_world_frame_does_not_matter_and_the_poses_do(twin, spatial):
    family, _, folder, inputs, scene = twin
    model = loaded(family, folder, spatial, train_seed=1)
    world = random_poses(1, torch.Generator().manual_seed(5))
    world[:, :3, 3] *= 100
    moved = torch.cat([FramePoses(part @ world).relative().cam_from_world for part in scene.poses.cam_from_world.split(3)])
    expected = model(**inputs, scene=scene).logits
    same = model(**inputs, scene=replace(scene, poses=replace(scene.poses, cam_from_world=moved))).logits
    other = model(**inputs, scene=replace(scene, poses=replace(scene.poses, cam_from_world=moved.flip(0)))).logits
    torch.testing.assert_close(same, expected, rtol=0, atol=1e-5)
    assert (other - expected).abs().max() > 1e-4


@torch.no_grad()
def test_a_row_alone_is_the_row_of_a_batch(twin):
    family, _, folder, inputs, scene = twin
    model = loaded(family, folder, {**REPLACE, **ADD}, train_seed=1)
    alone = dict(input_ids=inputs['input_ids'][1:], position_ids=inputs['position_ids'][:, 1:],
                 pixel_values_videos=inputs['pixel_values_videos'][48:], video_grid_thw=inputs['video_grid_thw'][1:])
    part = replace(scene, step_of_token=(scene.step_of_token[1:] - 3).clamp(min=-1), geometry=scene.geometry[12:],
                   poses=FramePoses(scene.poses.cam_from_world[3:], scene.poses.img_from_cam[3:]))
    torch.testing.assert_close(model(**alone, scene=part).logits, model(**inputs, scene=scene).logits[1:], rtol=0, atol=1e-5)


def test_files_go_both_ways(twin, tmp_path):
    family, library, _, inputs, scene = twin
    model = loaded(family, twin[2], {**APPEND, **ADD}, train_seed=1)
    model.save_pretrained(tmp_path)
    again, info = family.ours.from_pretrained(tmp_path, output_loading_info=True)
    assert info['missing_keys'] == info['unexpected_keys'] == []
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs, scene=scene).logits, model(**inputs, scene=scene).logits, rtol=0, atol=0)
    theirs, info = family.library.from_pretrained(tmp_path, output_loading_info=True)
    assert info['missing_keys'] == [] and all('pose' in key or 'connector' in key for key in info['unexpected_keys'])
    for name, value in library.state_dict().items():
        assert torch.equal(theirs.state_dict()[name], value), name
    assert family.library.__name__ in (config := (tmp_path / 'config.json').read_text()) and 'Spatial' not in config


def test_what_was_computed_before_takes_the_place_of_pixels():
    inputs, scene = tiny_batch('int')
    model = SpatialQwen25(config_25()).eval()
    with torch.no_grad():
        expected = model(**inputs, scene=scene).logits
        tokens, _ = model.look(inputs.pop('pixel_values_videos'), inputs['video_grid_thw'])
        torch.testing.assert_close(model(**inputs, video_tokens=tokens).logits, expected, rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize('mode', ['append', 'replace'])
def test_scores_by_a_slow_oracle(mode):
    """Of each pair of tokens: P_i P_j^-1 on the pose channels, turns on the others, one by one; values through P too."""
    settings = PoseSettings(mode=mode, values=mode == 'replace', trans_scale=0.3)
    model = SpatialQwen25(config_25(pose=dict(mode=mode, values=mode == 'replace', trans_scale=0.3))).double().eval()
    layer = model.model.language_model.layers[0].self_attn
    if mode == 'append':
        layer.pose_k.weight.normal_()
    _, scene = tiny_batch('int')
    views = scene.views()
    places = torch.randint(0, 9, (3, 2, views.count))
    hidden = torch.randn(2, views.count, 64, dtype=torch.float64)
    turns = model.model.language_model.rotary_emb(hidden, places)
    mask = torch.ones(views.count, views.count).tril().log().double()[None, None].expand(2, 1, -1, -1)
    ours, _ = layer(hidden, turns, model.pose_plan.bind(model.pose_encoding, views, hidden.device), mask)

    eye = torch.eye(4, dtype=torch.float64)
    lift = torch.eye(4, dtype=torch.float64)
    lift[:2, :3] = scene.poses.img_from_cam[0, :2] - torch.tensor([[0, 0, 0.5], [0, 0, 0.5]])
    shrunk = scene.poses.cam_from_world.clone()
    shrunk[:, :3, 3] *= 0.3
    matrix = torch.where(scene.step_of_token[..., None, None] < 0, eye, (lift @ shrunk)[scene.step_of_token])
    pairs = matrix[:, :, None] @ matrix.inverse()[:, None]  # P_i P_j^-1 of every pair
    q, k, v = (part(hidden).unflatten(-1, (-1, 16)).transpose(1, 2) for part in (layer.q_proj, layer.k_proj, layer.v_proj))
    k, v = (part.repeat_interleave(2, dim=1) for part in (k, v))
    axes = [0] * 2 + [1] * 3 + [2] * 3
    frequencies = model.model.language_model.rotary_emb.inv_freq.double()
    scores = 0.0
    for pair, axis in enumerate(axes):
        if mode == 'replace' and axis == 0:
            continue
        angle = places[axis].double() * frequencies[pair]
        gap = (angle[:, None] - angle[:, :, None])[:, None]  # of key j after query i
        qu, qw, ku, kw = (part[..., channel] for part in (q, k) for channel in (pair, pair + 8))
        scores = scores + gap.cos() * (qu[..., None] * ku[:, :, None] + qw[..., None] * kw[:, :, None])
        scores = scores + gap.sin() * (qw[..., None] * ku[:, :, None] - qu[..., None] * kw[:, :, None])
    if mode == 'append':
        pose_q = layer.pose_q(hidden).unflatten(-1, (4, 4)).transpose(1, 2)
        pose_k = layer.pose_k(hidden).unflatten(-1, (2, 4)).transpose(1, 2).repeat_interleave(2, dim=1)
    else:
        pose_q, pose_k = q[..., [0, 1, 8, 9]], k[..., [0, 1, 8, 9]]
    scores = scores + torch.einsum('bhic,bijcd,bhjd->bhij', pose_q, pairs, pose_k)
    weights = (scores / 4 + mask).softmax(-1)
    read = torch.einsum('bhij,bhjc->bhic', weights, v)
    if settings.values:
        read[..., :4] = torch.einsum('bhij,bijcd,bhjd->bhic', weights, pairs, v[..., :4])
    torch.testing.assert_close(ours, layer.o_proj(read.transpose(1, 2).flatten(2)), rtol=0, atol=1e-6)


@torch.no_grad()
def test_logits_lose_by_angle_and_distance():
    """2^(-8 h / 4) times (1 - cos theta) + |c_i - c_j|^2 between posed tokens, nothing else."""
    model = SpatialQwen25(config_25(pose=dict(mode='bias', trans_scale=0.5))).double().eval()
    layer = model.model.language_model.layers[0].self_attn
    _, scene = tiny_batch('int')
    views = scene.views()
    hidden = torch.randn(2, views.count, 64, dtype=torch.float64)
    turns = model.model.language_model.rotary_emb(hidden, torch.arange(views.count).expand(3, 2, -1))
    pose = scene.poses.cam_from_world[scene.step_of_token.clamp(min=0)]
    turn, center = pose[..., :3, :3], -(pose[..., :3, :3].mT @ pose[..., :3, 3:])[..., 0]
    cosine = ((turn[:, :, None] * turn[:, None]).sum((-1, -2)) - 1) / 2
    loss = 1 - cosine + torch.cdist(0.5 * center, 0.5 * center) ** 2
    posed = scene.step_of_token >= 0
    loss = loss * (posed[:, :, None] & posed[:, None])
    mask = torch.ones(views.count, views.count).tril().log().double() - torch.tensor([0.25, 1 / 16, 1 / 64, 1 / 256]).double()[
        :, None, None] * loss[:, None]
    plan = model.pose_plan
    causal = torch.ones(views.count, views.count).tril().log().double()[None, None].expand(2, 1, -1, -1)
    ours, _ = layer(hidden, turns, plan.bind(model.pose_encoding, views, hidden.device), causal)
    plain, _ = layer(hidden, turns, plan.bind(model.pose_encoding, None, hidden.device), mask)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-9)


@pytest.mark.parametrize('pose', [dict(mode='replace', values=True), dict(mode='append'), dict(mode='bias')], ids=str)
def test_the_causal_flag_stays_and_values_are_as_wide_as_keys(pose, monkeypatch):
    """What lets fused kernels work: no mask of queries by keys, one width."""
    seen = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def watch(query, key, value, attn_mask=None, is_causal=False, **kwargs):
        seen.append((query.shape[-1], key.shape[-1], value.shape[-1], attn_mask, is_causal))
        return kernel(query, key, value, attn_mask=attn_mask, is_causal=is_causal, **kwargs)

    inputs, scene = tiny_batch('int')
    model = SpatialQwen25(config_25(pose=pose)).eval()
    monkeypatch.setattr(torch.nn.functional, 'scaled_dot_product_attention', watch)
    model(**inputs, scene=scene)
    ours = seen[-2:]  # the tower's come first
    width = dict(replace=16, append=20, bias=16 + 16)[pose['mode']]
    assert ours == [(width, width, width, None, True)] * 2


def test_the_small_encoder_tells_places_apart_and_learns():
    encoder = SmallViT(6, dim=12)
    rows = torch.ones(2 * 4 * 4 + 16, 6)
    packed = encoder(rows, [(2, 4, 4), (1, 4, 4)])
    assert packed.shape == (12, 4 * 12) and (torch.cdist(packed[:8], packed[:8]) + torch.eye(8) > 1e-3).all()
    torch.testing.assert_close(encoder(rows[32:], [(1, 4, 4)]), packed[8:], rtol=0, atol=1e-6)
    inputs, scene = tiny_batch('int')
    model = SpatialQwen25(config_25(encoder=dict(dim=12), connector=dict(type='add', geometry_dim=48, zero=False)))
    model(**inputs, labels=inputs['input_ids']).loss.backward()
    assert model.encoder.embed.weight.grad.abs().max() > 0


@torch.no_grad()
def test_still_channels_do_not_know_the_time():
    inputs, scene = tiny_batch('int')
    model = SpatialQwen25(config_25(pose=dict(mode='still'))).eval()
    later = inputs['position_ids'].clone()
    later[0] *= 7
    expected = model(**inputs).logits
    torch.testing.assert_close(model(**dict(inputs, position_ids=later), scene=scene).logits, expected, rtol=0, atol=1e-6)


def test_keys_and_values_are_cached_as_they_are_attended_to_before_they_are_repeated():
    model = SpatialQwen25(config_25(**APPEND)).eval()
    inputs, scene = tiny_batch('int')
    cache = DynamicCache()
    model(**inputs, scene=scene, past_key_values=cache, use_cache=True)
    assert cache.layers[0].keys.shape == (2, 2, 19, 16 + 4) and cache.layers[0].values.shape == (2, 2, 19, 16)


def test_which_channels_time_has():
    halves = AttentionShape(4, 2, 16, (2, 3, 3), False, None)
    turns = AttentionShape(4, 2, 16, (4, 2, 2), True, None)
    assert halves.pose_channels(None) == [0, 1, 8, 9] and turns.time_pairs() == [0, 3, 6, 7]
    assert turns.pose_channels(None) == [0, 3, 6, 7, 8, 11, 14, 15] and turns.pose_channels(4) == [0, 3, 8, 11]
    full = AttentionShape(28, 4, 128, (16, 24, 24), False, None)
    assert len(full.pose_channels(None)) == 32 and full.key_heads_of(range(14)) == [0, 1]
    for wrong in ((0, 1, 2), (7, 8), (28, 29, 30, 31, 32, 33, 34)):
        with pytest.raises(ValueError, match='whole groups of 7'):
            full.key_heads_of(wrong)
    with pytest.raises(ValueError, match='time has 4 rotary channels of 16'):
        PosePlan(PoseSettings(channels=8), halves)


@pytest.mark.parametrize('spatial, message', [
    (dict(pose=dict(mode='add')), 'pose.mode must be one of'),
    (dict(encoder=dict(dim=10), connector=dict(type='add', geometry_dim=8)), 'must divide by 6'),
    (dict(encoder={}), 'no connector reads'), (dict(pose=dict(mode='append', values=True)), 'leaves values'),
    (dict(pose=dict(channels=6)), 'multiple of 4'), (dict(pose=dict(heads=(1, 0))), 'rising numbers'),
    (dict(pose=dict(layers=(2,))), 'the model has 2 layers'), (dict(poses={}), "unknown parts \\['poses'\\]"),
    (dict(connector=dict(type='mul')), 'connector.type must be one of add, cat, camera_token, camera_prefix or none'),
])
def test_wrong_settings_are_named(spatial, message):
    with pytest.raises(ValueError, match=message):
        SpatialQwen25(config_25(**spatial))


@torch.no_grad()
@pytest.mark.parametrize('name', FAMILIES)
def test_a_camera_token_stands_before_those_of_its_step(name, monkeypatch):
    """By hand: the embeddings that the language model is given, and what Qwen3's deeper layers add."""
    family = FAMILIES[name]
    torch.manual_seed(0)
    model = family.ours(family.config(connector=dict(type='camera_prefix', geometry_dim=CAMERA_DIM))).eval()
    inputs, scene = tiny_batch(family.time, camera_tokens=True)
    tokens, deeper = model.look(inputs['pixel_values_videos'], inputs['video_grid_thw'])
    given, run = {}, model.model.language_model.forward
    monkeypatch.setattr(model.model.language_model, 'forward', lambda **kwargs: given.update(kwargs) or run(**kwargs))
    first = model(**inputs, scene=scene).logits
    film = inputs['input_ids'] == VIDEO
    steps = given['inputs_embeds'][film].unflatten(0, (6, 5))
    torch.testing.assert_close(steps[:, 1:].flatten(0, 1), tokens)
    torch.testing.assert_close(steps[:, 0], model.connector.mlp(model.connector.ln_q(scene.camera)))
    for layer, own in zip(given.get('deepstack_visual_embeds', []), deeper):
        layer = layer.unflatten(0, (6, 5))
        assert layer[:, 0].abs().max() == 0 and torch.equal(layer[:, 1:].flatten(0, 1), own)
    places = inputs['position_ids'][:, film].unflatten(1, (6, 5))
    assert torch.equal(places[..., 0], places[..., 1]) and (places[..., 1:].diff(dim=-1) != 0).any(0).all()
    moved = replace(scene, camera=scene.camera.index_fill(0, torch.tensor([5]), 3.0))
    second = model(**inputs, scene=moved).logits
    assert torch.equal(second[0], first[0]) and not torch.equal(second[1], first[1])
    answer = model.generate(**inputs, scene=scene, **GREEDY)
    torch.testing.assert_close(answer.logits[0], first[:, -1], atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match='24 placeholder tokens for 30 vision tokens; camera_tokens must be True'):
        model(**tiny_batch(family.time)[0], scene=scene)


def test_what_a_scene_lacks_is_named():
    inputs, scene = tiny_batch('int')
    for spatial, given, message in [(REPLACE, None, 'this video has none'),
                                    (REPLACE, replace(scene, poses=None), 'give Scene.poses'),
                                    (ADD, replace(scene, geometry=None), "a scene's geometry")]:
        with pytest.raises(ValueError, match=message):
            SpatialQwen25(config_25(**spatial))(**inputs, scene=given)
    fewer = dict(inputs, pixel_values_videos=inputs['pixel_values_videos'][:48], video_grid_thw=inputs['video_grid_thw'][:1])
    with pytest.raises(ValueError, match='24 placeholder tokens for 12 vision tokens'):
        SpatialQwen25(config_25())(**fewer)
    model = SpatialQwen25(config_25()).eval()
    with pytest.raises(ValueError, match='beams'):
        model.generate(**inputs, num_beams=2, max_new_tokens=2)


def test_a_full_size_model_builds_without_memory_under_the_published_names():
    config = transformers.Qwen2_5_VLConfig(
        text_config=dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
                         num_key_value_heads=4, vocab_size=152064, rope_scaling=dict(type='mrope', mrope_section=[16, 24, 24])),
        vision_config=dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=3584))
    config.spatial = dict(pose=dict(mode='append', channels=32), connector=dict(type='add', geometry_dim=2048 * 8))
    with torch.device('meta'):
        model = SpatialQwen25(config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes['model.language_model.layers.27.self_attn.q_proj.weight'] == (3584, 3584)
    assert shapes['model.language_model.layers.27.self_attn.k_proj.bias'] == (512,)
    assert shapes['model.language_model.layers.0.self_attn.pose_k.weight'] == (4 * 32, 3584)
    assert shapes['model.visual.blocks.31.attn.qkv.weight'] == (3840, 1280)
    assert shapes['connector.mlp.2.weight'] == (3584, 16384)
    assert all(isinstance(layer.self_attn, PoseAttention) for layer in model.model.language_model.layers)
    theirs = {name for name in shapes if 'pose' not in name and 'connector' not in name}
    with torch.device('meta'):
        assert theirs == set(transformers.Qwen2_5_VLForConditionalGeneration(config).state_dict())


def test_a_full_size_qwen3_builds_without_memory_under_the_published_names():
    config = transformers.Qwen3VLConfig(
        text_config=dict(hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32,
                         num_key_value_heads=8, head_dim=128, vocab_size=151936,
                         rope_scaling=dict(rope_type='default', mrope_section=[24, 20, 20])),
        vision_config=dict(depth=27, hidden_size=1152, intermediate_size=4304, num_heads=16, out_hidden_size=4096,
                           deepstack_visual_indexes=[8, 16, 24]))
    config.spatial = dict(pose=dict(mode='append', channels=32, heads=tuple(range(16)), layers=(0, 35)))
    with torch.device('meta'):
        shapes = {name: tuple(value.shape) for name, value in SpatialQwen3(config).state_dict().items()}
        theirs = set(transformers.Qwen3VLForConditionalGeneration(config).state_dict())
    assert {name: shape for name, shape in shapes.items() if name not in theirs} == {
        f'model.language_model.layers.{layer}.self_attn.pose_{part}.weight': (count * 32, 4096)
        for layer in (0, 35) for part, count in dict(q=16, k=4).items()}
    assert theirs <= set(shapes) and shapes['model.language_model.layers.35.self_attn.q_norm.weight'] == (128,)
