"""Made rooms, a small model: examples, batches, training and testing by the Runner, checkpoints that come back."""

import json
import logging
import re
import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from safetensors import safe_open
from tiny_qwen import FAMILIES, tiny_batch
from transformers import AutoConfig, AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from projects.memfusion.runtime import UserError, apply_checkpoint, build_runner, check_run, prepare_config
from projects.memfusion.runtime.run_checks import check_optimizer
from projects.spatial_mllm.geometry_sources.files import PosedFrames, PrecomputedGeometry
from projects.spatial_mllm.geometry_sources.source import build_source, in_first_camera, patch_means, unproject
from projects.spatial_mllm.model.poses import FramePoses
from projects.spatial_mllm.processing.batch import Example, pack_batch, pad_batch, spatial_collate
from projects.spatial_mllm.processing.chat import NO_LABEL, Chat
from projects.spatial_mllm.processing.processor import Processor
from projects.spatial_mllm.processing.tokenizer import SPECIAL, VIDEO_PAD, load_tokenizer, train_tokenizer
from projects.spatial_mllm.readers.geometry_file import read_geometry
from projects.spatial_mllm.rooms.generate import generate
from projects.spatial_mllm.rooms.settings import make_settings
from projects.spatial_mllm.scoring.store import AnswerStore
from projects.spatial_mllm.tiny_checkpoint import main as make_checkpoint
from projects.spatial_mllm.training.dataset import SpatialQADataset
from projects.spatial_mllm.training.hooks import SavePretrainedHook
from projects.spatial_mllm.training.lora import merged_state
from projects.spatial_mllm.training.video_language_model import VideoLanguageModel, load_model

REPO = Path(__file__).resolve().parents[3]
TINY = REPO / 'configs/spatial_mllm/tiny_pose-append_cpu_rooms.py'
LEAVES = sorted((REPO / 'configs/spatial_mllm').glob('*.py'), key=str)
SMALL = ['--hidden', '32', '--layers', '2', '--heads', '2', '--key-heads', '1', '--vision-hidden', '16', '--vision-heads', '2']
FRAMES = dict(type='uniform', num_frames=4)


@pytest.fixture(scope='module')
def rooms(tmp_path_factory):
    """Two rooms to learn from and one to be tested in, 56 pixels a side."""
    root = tmp_path_factory.mktemp('rooms') / 'rooms'
    generate(root, make_settings('nano', 3, rooms=(2, 0, 1), image_size=56), 1, False, lambda done, total: None)
    return root


@pytest.fixture(scope='module')
def checkpoint(rooms, tmp_path_factory):
    folder = tmp_path_factory.mktemp('checkpoint')
    assert make_checkpoint([str(folder), '--texts', str(rooms / 'train/sft.jsonl'), *SMALL]) == 0
    return folder


@pytest.fixture
def room_data(rooms, checkpoint):
    """A data set: room_data(settings of the processor, **arguments)."""
    def make(processor=None, test_mode=False, **arguments):
        source = (dict(type='vsibench', path=str(rooms / 'test/vsibench.jsonl'), videos=str(rooms)) if test_mode else
                  dict(type='sft', path=str(rooms / 'train/sft.jsonl'), videos=str(rooms)))
        given = {**dict(checkpoint=str(checkpoint), system=None, geometry=dict(type='PosedFrames')), **(processor or {})}
        return SpatialQADataset(**{**dict(source=source, processor=given, sampler=FRAMES, test_mode=test_mode), **arguments})
    return make


@pytest.fixture
def environment(monkeypatch, rooms, checkpoint):
    for name in ('QWEN_CHECKPOINT', 'QWEN3_CHECKPOINT'):
        monkeypatch.setenv(name, str(checkpoint))
    monkeypatch.setenv('SPATIAL_ROOMS', str(rooms))


def run_config(folder, environment, **options):
    """The tiny config, shorter."""
    cfg = prepare_config(TINY, {'train_dataloader.dataset.limit': 8, 'train_dataloader.batch_size': 4,
                                'test_dataloader.batch_size': 4, 'test_dataloader.dataset.limit': 8, 'model.max_new_tokens': 3,
                                'train_dataloader.dataset.sampler.num_frames': 4,
                                'test_dataloader.dataset.sampler.num_frames': 4, **options})
    cfg.work_dir, cfg.experiment_name = str(folder), folder.name
    return cfg


# -- examples ---------------------------------------------------------------------------------------------------------
def test_an_example_says_what_it_should(room_data, checkpoint):
    data = room_data()
    item = data[0]
    example, tokenizer = item['example'], load_tokenizer(checkpoint)
    text = tokenizer.decode(example.tokens)
    sample = data.samples[0]
    assert text == (f'<|im_start|>user\n<|vision_start|>{VIDEO_PAD * 8}<|vision_end|>{sample.prompt}<|im_end|>\n'
                    f'<|im_start|>assistant\n{sample.answer}<|im_end|>\n')
    learnt = example.tokens[example.labels != NO_LABEL]
    assert tokenizer.decode(learnt) == f'{sample.answer}<|im_end|>' and item['row']['id'] == sample.key
    assert example.pixels.shape == (2 * 4 * 4, 1176) and example.grid.tolist() == [[2, 4, 4]]
    assert example.step_of_token[example.tokens == tokenizer.convert_tokens_to_ids(VIDEO_PAD)].tolist() == [0] * 4 + [1] * 4
    assert (example.step_of_token >= 0).sum() == 8
    with np.load(sample.geometry) as file:
        world_from_cam, intrinsics, size = file['world_from_cam'], file['intrinsics'], file['image_hw']
    chosen = [0, 4]  # of frames 0, 2, 4, 7 the first of each pair
    relative = np.linalg.inv(world_from_cam[chosen]) @ world_from_cam[0]
    torch.testing.assert_close(example.poses.cam_from_world, torch.from_numpy(relative), rtol=0, atol=1e-9)
    middle = (intrinsics.reshape(-1, 3, 3)[0, 0, 2] + 0.5) / size[1]
    assert example.poses.img_from_cam[0, 0, 2] == pytest.approx(middle) and middle == pytest.approx(0.5, abs=0.02)
    assert example.camera.shape == (2, 2 * 16)
    without = room_data(dict(geometry=dict(type='PosedFrames', intrinsics=False)))[0]['example']
    assert without.camera.shape == (2, 2 * 12) and without.poses.img_from_cam is None


def test_a_token_more_for_each_camera(room_data):
    plain, more = (room_data(dict(camera_tokens=more))[0]['example'] for more in (False, True))
    assert len(more.tokens) == len(plain.tokens) + 2 and more.position_ids.shape == (3, len(more.tokens))
    assert [(more.step_of_token == step).sum() for step in (0, 1)] == [5, 5]
    assert torch.equal(more.position_ids.amax(1), plain.position_ids.amax(1)) and torch.equal(more.camera, plain.camera)


def test_each_frame_of_a_duplicated_pair_has_its_pose(room_data):
    pairs, single = (room_data(dict(pose_merge=merge))[0]['example'] for merge in ('first', 'duplicate'))
    assert single.grid.tolist() == [[4, 4, 4]] and len(single.poses.cam_from_world) == 4
    assert torch.equal(single.poses.cam_from_world[::2], pairs.poses.cam_from_world)
    first, second = single.pixels[:16].unflatten(1, (3, 2, -1)).unbind(2)
    assert torch.equal(first, second) and torch.equal(first, pairs.pixels[:16].unflatten(1, (3, 2, -1))[:, :, 0])


def test_frames_of_qwen3_stand_behind_their_times(checkpoint):
    tokenizer = load_tokenizer(checkpoint)
    tokens, labels = Chat(tokenizer, by_frames=True, system=None).encode('Q', (2, 2, 4), 2.0)
    block = f'<|vision_start|>{VIDEO_PAD * 2}<|vision_end|>'
    assert tokenizer.decode(tokens) == (f'<|im_start|>user\n<0.5 seconds>{block}<2.5 seconds>{block}Q<|im_end|>\n'
                                        '<|im_start|>assistant\n')
    assert (labels == NO_LABEL).all()


def test_memory_does_not_grow_with_videos(room_data):
    data = room_data()
    seen = sorted({sample.video: sample for sample in data.samples}.values(), key=lambda sample: str(sample.video))

    def peak(count):
        data.samples = seen * count
        tracemalloc.start()
        for index in range(len(data.samples)):
            data[index]
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1)
    more, clip = 6 * len(seen), 4 * 56 * 56 * 3
    assert peak(8) - peak(2) < more * clip / 4  # paths and headers that Python keeps; no frames


def test_seconds_come_from_the_video_where_the_config_says_so(room_data):
    ask = room_data(dict(seconds_per_grid=None, geometry=None)).processor
    frames = torch.zeros(4, 56, 56, 3, dtype=torch.uint8)
    times = ask('Q', None, frames, seconds_per_frame=1.5)
    seen = times.position_ids[0][times.step_of_token >= 0]
    assert (seen - seen[0]).tolist() == [0] * 4 + [6] * 4  # two frames of 1.5 s, two ids a second
    with pytest.raises(ValueError, match='nobody knows the time'):
        ask('Q', None, frames)


def test_geometry_of_patches_lies_where_it_should(rooms):
    """World points of two frames agree where one sees what the other sees: their depth maps do."""
    known = read_geometry(next((rooms / 'rooms').glob('*.npz')), 8)
    found = PosedFrames(points=True)(torch.zeros(8, 56, 56, 3, dtype=torch.uint8), known, (4, 4))
    assert found.tokens.shape == (8, 16, 4) and (found.tokens[..., 3] > 0.9).all()
    points = found.world_points[0, ::7, ::7].reshape(-1, 3)
    camera = torch.from_numpy(known.cam_from_world)
    inside = points @ camera[0, :3, :3].T + camera[0, :3, 3]
    pixels = inside @ torch.from_numpy(known.intrinsics[0]).T
    assert torch.allclose(inside[:, 2], torch.from_numpy(known.depth[0, ::7, ::7]).double().reshape(-1), atol=1e-5)
    y, x = np.mgrid[0:56:7, 0:56:7]
    torch.testing.assert_close((pixels[:, :2] / pixels[:, 2:]).numpy(), np.stack([x, y], -1).reshape(-1, 2).astype(float),
                               rtol=0, atol=1e-5)


def test_points_of_patches_by_hand():
    eyes = [torch.eye(size, dtype=torch.float64).repeat(2, 1, 1) for size in (4, 3)]
    poses = FramePoses(*eyes)
    poses.cam_from_world[:, 2, 3] = torch.tensor([1.0, 2.0])
    poses.img_from_cam[:, :2, 2] = 0.5
    points = unproject(torch.full((2, 2, 2), 4.0), poses)
    assert points[0, 0, 0].tolist() == [-1, -1, 3] and points[1, 1, 1].tolist() == [1, 1, 2]
    assert in_first_camera(points, poses)[1, 1, 1].tolist() == [1, 1, 3]
    weights = torch.tensor([[[1.0, 0], [1, 0]], [[0, 0], [0, 0]]])
    means = patch_means(points.float(), weights, (1, 1))
    assert means.tolist() == [[[-1, 0, 3, 0.5]], [[0, 0, 0, 0]]]
    with pytest.raises(ValueError, match='need intrinsics'):
        unproject(torch.ones(2, 2, 2), FramePoses(poses.cam_from_world))


def test_what_a_network_left_is_packed_and_checked(rooms, tmp_path):
    known = read_geometry(next((rooms / 'rooms').glob('*.npz')), 8)
    tokens = np.random.default_rng(0).normal(size=(8, 16, 3)).astype(np.float32)
    source = build_source(dict(type='PrecomputedGeometry'))
    assert source.needs == ('tokens', 'world_from_cam', 'intrinsics') and isinstance(source, PrecomputedGeometry)
    found = source(torch.zeros(8, 56, 56, 3), replace(known, tokens=tokens), (4, 4))
    assert np.array_equal(found.tokens, tokens) and found.poses.cam_from_world.shape == (8, 4, 4)
    with pytest.raises(ValueError, match=r'npz: tokens of 16 patches a frame, the frames are seen in 2 x 4'):
        source(torch.zeros(8, 56, 56, 3), replace(known, tokens=tokens), (2, 4))
    for missing, message in ((known, 'tokens missing'), (None, 'no geometry file beside the video: tokens missing')):
        with pytest.raises(ValueError, match=message):
            source(torch.zeros(8, 56, 56, 3), missing, (4, 4))


# -- batches ----------------------------------------------------------------------------------------------------------
@torch.no_grad()
@pytest.mark.parametrize('name', FAMILIES)
def test_padded_on_either_side_and_packed_are_each_alone(name):
    family = FAMILIES[name]
    torch.manual_seed(0)
    spatial = dict(pose=dict(mode='replace'), connector=dict(type='add', geometry_dim=24, zero=False))
    model = family.ours(family.config(**spatial)).eval()
    inputs, scene = tiny_batch(family.time)
    labels = inputs['input_ids'].index_fill(1, torch.arange(1), NO_LABEL)
    examples = []
    for row, cut in enumerate((0, 2)):
        length = inputs['input_ids'].shape[1] - cut
        steps = scene.step_of_token[row, :length]
        examples.append(Example(
            inputs['input_ids'][row, :length], labels[row, :length], inputs['position_ids'][:, row, :length],
            torch.where(steps < 0, -1, steps - 3 * row), inputs['pixel_values_videos'][48 * row:48 * (row + 1)],
            inputs['video_grid_thw'][row:row + 1],
            FramePoses(scene.poses.cam_from_world[3 * row:3 * row + 3], scene.poses.img_from_cam[3 * row:3 * row + 3]),
            scene.geometry[12 * row:12 * (row + 1)]))
    alone = [model(**pad_batch([example], 'right')) for example in examples]
    lengths = [len(example.tokens) for example in examples]
    right, left = (model(**pad_batch(examples, side)) for side in ('right', 'left'))
    packed = model(**pack_batch(examples))
    start = 0
    for row, (single, length) in enumerate(zip(alone, lengths)):
        parts = dict(right=right.logits[row, :length], left=left.logits[row, -length:],
                     packed=packed.logits[0, start:start + length])
        for where, ours in parts.items():
            torch.testing.assert_close(ours, single.logits[0], rtol=0, atol=1e-5, msg=f'{name}, {where}')
        start += length
    mean = sum(single.loss * (length - 1) for single, length in zip(alone, lengths)) / sum(length - 1 for length in lengths)
    for batch in (right, left, packed):
        torch.testing.assert_close(batch.loss, mean, rtol=0, atol=1e-5)


def test_a_batch_of_what_does_not_go_together_is_refused(room_data):
    example = room_data()[0]['example']
    with pytest.raises(ValueError, match='1 of the 2 videos of a batch have no poses'):
        pad_batch([example, replace(example, poses=None)], 'right')
    part = replace(example.poses, img_from_cam=None)
    with pytest.raises(ValueError, match='1 of the 2 videos of a batch have no intrinsics'):
        pad_batch([example, replace(example, poses=part)], 'right')
    with pytest.raises(ValueError, match='padding side'):
        pad_batch([example], 'both')
    text = Processor(room_data().processor.tokenizer.name_or_path)('Is it?', 'yes', None)
    mixed = pad_batch([text, example], 'left')
    assert mixed['scene'].step_of_token.shape == mixed['input_ids'].shape and pad_batch([text], 'left')['scene'] is None
    assert spatial_collate([dict(example=None, row=dict(id='1', problem='gone'))])['inputs'] is None


# -- tokenizers, folders ----------------------------------------------------------------------------------------------
def test_a_tokenizer_is_checked(tmp_path, checkpoint):
    tokenizer = train_tokenizer(['where is the red chair'] * 3, 300)
    assert all(len(tokenizer.encode(token)) == 1 for token in SPECIAL)
    assert tokenizer.decode(tokenizer.encode('where is it? é')) == 'where is it? é'
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        load_tokenizer('nowhere')
    with pytest.raises(ValueError, match=f'{tmp_path}: holds no tokenizer'):
        load_tokenizer(tmp_path)
    shutil.copytree(checkpoint, tmp_path / 'other')
    for name in ('tokenizer.json', 'tokenizer_config.json', 'added_tokens.json', 'special_tokens_map.json'):
        path = tmp_path / 'other' / name
        if path.is_file():
            path.write_text(path.read_text().replace('<|video_pad|>', '<|film_pad|>'))
    with pytest.raises(ValueError, match=r'other: the tokenizer has no token of its own for <\|video_pad\|>'):
        load_tokenizer(tmp_path / 'other')
    shutil.copytree(checkpoint, tmp_path / 'ids')
    config = json.loads((tmp_path / 'ids/config.json').read_text())
    (tmp_path / 'ids/config.json').write_text(json.dumps({**config, 'video_token_id': 3}))
    with pytest.raises(ValueError, match='config.json and tokenizer disagree'):
        Processor(tmp_path / 'ids')
    for token in SPECIAL:
        with pytest.raises(ValueError, match=re.escape(f'holds the special token {token}')):
            Processor(checkpoint)(f'a {token}', None, None)


def test_folders_that_were_cut_off_are_named(tmp_path, checkpoint):
    for name, told in {'tokenizer.json': 'holds no tokenizer', 'config.json': 'config.json cannot be read',
                       'model.safetensors': 'its weights cannot be loaded'}.items():
        folder = tmp_path / name.split('.')[0]
        shutil.copytree(checkpoint, folder)
        whole = (folder / name).read_bytes()
        for rest in (whole[:len(whole) // 2], b''):
            (folder / name).write_bytes(rest)
            with pytest.raises(ValueError, match=f'{folder}: {told}'):
                (Processor if name == 'tokenizer.json' else load_model)(folder)
    config = json.loads((checkpoint / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**config, 'text_config': {**config['text_config'], 'hidden_size': 16}}))
    shutil.copy(checkpoint / 'model.safetensors', folder)
    with pytest.raises(ValueError, match=f'{folder}: its weights cannot be loaded .*those of its config.json'):
        load_model(folder)


# -- data -------------------------------------------------------------------------------------------------------------
def test_a_bad_video_never_ends_a_run(room_data, rooms, tmp_path):
    broken = tmp_path / 'rooms'
    shutil.copytree(rooms, broken)
    first = json.loads((broken / 'train/sft.jsonl').read_text().split('\n')[0])['video']
    lost = sorted((broken / first).glob('*.png'))
    for path in lost:
        path.write_bytes(b'cut off')
    source = dict(type='sft', path=str(broken / 'train/sft.jsonl'), videos=str(broken))
    data = room_data(source=source)
    bad = next(index for index, sample in enumerate(data.samples) if sample.video == lost[0].parent)
    other = next(index for index, sample in enumerate(data.samples) if sample.video != lost[0].parent)
    bad_sample = data.samples[bad]
    data.samples = [*[bad_sample] * 50, data.samples[other]]
    assert data[0]['row']['id'] == data.samples[-1].key  # the next in its place, however many ask about the video
    del data.samples[1:-1]
    data.test_mode = True
    item = data[0]
    assert item['example'] is None and 'sft.jsonl' in item['row']['problem'] and lost[0].name in item['row']['problem']
    data.test_mode, data.samples = False, [replace(data.samples[1], answer=None), data.samples[1]]
    assert data[0]['row'] == data[1]['row']  # nothing to learn from the first
    data.samples = [bad_sample]
    for _ in range(2):
        with pytest.raises(ValueError, match=f'1 samples in a row cannot be used, the last: .*{lost[0].name}'):
            data[0]
    data.unread.clear()
    beside = lost[0].parent.parent / f'{lost[0].parent.name}.npz'
    with np.load(beside) as file:
        np.savez(tmp_path / 'poses.npz', world_from_cam=file['world_from_cam'])
    shutil.copy(tmp_path / 'poses.npz', beside)
    with pytest.raises(ValueError, match=f'row .*{beside.name}: intrinsics missing'):
        data[0]
    beside.unlink()
    kept = room_data(source=source)
    assert all(sample.video != lost[0].parent for sample in kept.samples)


def test_answers_that_are_there_are_not_asked_again(room_data, tmp_path):
    first = room_data(test_mode=True, answers=str(tmp_path), kinds=['exist', 'object_counting'])
    store = AnswerStore(tmp_path)
    for sample in first.samples[:-2]:
        store.add(dict(sample.row, prediction='A'))
    again = room_data(test_mode=True, answers=str(tmp_path), kinds=['exist', 'object_counting'])
    assert [sample.key for sample in again.samples] == [sample.key for sample in first.samples[-2:]]
    with pytest.raises(ValueError, match='were made with .*sampler'):
        room_data(test_mode=True, answers=str(tmp_path), sampler=dict(type='uniform', num_frames=8))
    with pytest.raises(ValueError, match='geometry.type must be one of .*PosedFrames'):
        room_data(dict(geometry=dict(type='Nothing')))
    with pytest.raises(ValueError, match='no question of these types; there are'):
        room_data(kinds=['colour'])
    with pytest.raises(ValueError, match="type='sft': path, videos"):
        room_data(source=dict(type='sft', path='x'))
    with pytest.raises(ValueError, match='limit=0: must be 1 or more'):
        room_data(limit=0)
    with pytest.raises(ValueError, match="answers are kept for vsibench, sqa3d, not for a source of type 'sft'"):
        room_data(answers=str(tmp_path))
    store.add(dict(first.samples[0].row, prediction=None, problem='could not be read'))
    assert AnswerStore(tmp_path).finished()[first.samples[0].key]['prediction'] == 'A'


def test_only_batches_that_are_padded_on_the_left_are_answered(checkpoint, room_data):
    model = VideoLanguageModel(str(checkpoint), {}, max_new_tokens=2).eval()
    data = room_data(dict(geometry=None), test_mode=True)
    data.samples = sorted(data.samples, key=lambda sample: len(sample.prompt))
    items = [data[0], data[-1]]
    unread = dict(example=None, row=dict(id='x', problem='gone'))
    answers = model(**spatial_collate([items[0], unread, items[1]], side='left'), mode='predict')
    alone = [model(**spatial_collate([item]), mode='predict')[0]['prediction'] for item in items]
    assert [row['prediction'] for row in answers] == [alone[0], None, alone[1]]
    assert model(**spatial_collate([unread]), mode='predict')[0]['prediction'] is None
    for wrong in (dict(side='right'), dict(pack=True)):
        with pytest.raises(ValueError, match="test_dataloader.collate_fn must have side='left'"):
            model(**spatial_collate(items, **wrong), mode='predict')


# -- the tools --------------------------------------------------------------------------------------------------------
def test_training_writes_a_folder_that_tests_alike(environment, checkpoint, tmp_path):
    build_runner(run_config(tmp_path / 'run', environment), phase='train').train()
    folder, file = tmp_path / 'run/pretrained', tmp_path / 'run/epoch_1.pth'
    trained, before = load_model(folder).state_dict(), load_model(checkpoint).state_dict()
    assert any(not torch.equal(trained[name], value) for name, value in before.items())
    assert any('pose_k' in name and value.abs().max() > 0 for name, value in trained.items())
    theirs = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).state_dict()
    assert theirs and all(torch.equal(trained[name], value) for name, value in theirs.items())
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == AutoTokenizer.from_pretrained(checkpoint).get_vocab()
    rows = []
    for number, given in enumerate((file, folder)):
        answers = tmp_path / f'answers_{number}'
        cfg = run_config(tmp_path / f'test_{number}', environment, **{
            'test_dataloader.dataset.answers': str(answers), 'test_evaluator.answers': str(answers)})
        apply_checkpoint(cfg, str(given))
        scores = build_runner(cfg, phase='test').test()
        rows.append({key: row['prediction'] for key, row in AnswerStore(answers).finished().items()})
    assert len(rows[0]) == 8 and rows[0] == rows[1] and scores['vsibench/num_rows'] == 8
    with pytest.raises(UserError, match='is a folder, and this model takes a checkpoint file'):
        apply_checkpoint(Config(dict(model=dict(type='TemporalFusionDetector'))), str(folder))


def test_checkpointing_half_precision_and_parts(checkpoint, room_data):
    batch = spatial_collate([room_data()[0], room_data()[1]])
    spatial = dict(pose=dict(mode='replace', values=True))

    def gradients(**settings):
        torch.manual_seed(0)
        model = VideoLanguageModel(str(checkpoint), spatial, **settings).train()
        model(**batch, mode='loss')['loss'].backward()
        found = {name: parameter.grad for name, parameter in model.network.named_parameters()}
        return {name: gradient.float() for name, gradient in found.items() if gradient is not None}

    plain, saved, half = gradients(), gradients(gradient_checkpointing=True), gradients(dtype='bfloat16')
    assert plain.keys() == saved.keys() == half.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(saved[name], gradient, rtol=1e-4, atol=1e-6)
    whole, rough = (torch.cat([part[name].flatten() for name in plain]) for part in (plain, half))
    assert torch.nn.functional.cosine_similarity(whole, rough, dim=0) > 0.98
    assert not any(name.startswith('model.visual') for name in gradients(frozen=('visual',)))
    parts = dict(connector=dict(type='camera_token', geometry_dim=32), pose=dict(mode='append'))
    tuned = VideoLanguageModel(str(checkpoint), parts, tune='connector')
    learning = {name for name, parameter in tuned.network.named_parameters() if parameter.requires_grad}
    assert learning and all('pose_' in name or name.startswith('connector.') for name in learning)
    for wrong, message in ((dict(tune='head'), 'model.tune'), (dict(tune='connector', spatial={}), 'nothing learns'),
                           (dict(frozen=('eyes',)), 'nothing below eyes'), (dict(lora=dict(r=2)), "is for tune='lora'"),
                           (dict(dtype='float8'), 'dtype'), (dict(spatial=dict(poses={})), 'unknown parts')):
        with pytest.raises(ValueError, match=message):
            VideoLanguageModel(**{**dict(checkpoint=str(checkpoint), spatial=spatial), **wrong})
    with pytest.raises(FileNotFoundError, match='nowhere: no such folder'):
        load_model('nowhere')


def test_small_steps_are_not_lost_in_half_precision(environment, checkpoint, tmp_path):
    """What learns is kept in float32: steps of 1e-5 move most of bfloat16's model, which is saved and tested in bfloat16."""
    given = {'model.dtype': 'bfloat16', 'optim_wrapper.optimizer.lr': 1e-5, 'train_dataloader.dataset.limit': 4,
             'model.frozen': ['visual']}
    runner = build_runner(run_config(tmp_path / 'run', environment, **given), phase='train')
    runner.train()
    begun, now = load_model(checkpoint, dtype='bfloat16').state_dict(), runner.model.network.state_dict()
    kept = [name for name in begun if not torch.equal(begun[name].to(now[name].dtype), now[name])]
    assert {now[name].dtype for name in now if name.startswith('model.visual.')} == {torch.bfloat16}
    learned = [name for name in begun if not name.startswith('model.visual.') and 'norm' not in name]
    assert {now[name].dtype for name in learned} == {torch.float32} and set(learned) <= {*kept}
    written = load_model(tmp_path / 'run/pretrained', dtype='bfloat16').state_dict()
    assert all(torch.equal(value, now[name].bfloat16()) for name, value in written.items())
    assert '"dtype": "bfloat16"' in (tmp_path / 'run/pretrained/config.json').read_text()
    full = prepare_config(TINY.parent / 'qwen25vl_pose-append_1e_vsibench.py')
    with pytest.raises(UserError, match='ShardedAdamW.*tools/dist_train.sh'):
        check_optimizer(full)
    cfg = run_config(tmp_path / 'test', environment, **given)
    apply_checkpoint(cfg, str(tmp_path / 'run/epoch_1.pth'))
    tester = build_runner(cfg, phase='test')
    tester.test()
    assert {parameter.dtype for parameter in tester.model.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for name, buffer in tester.model.named_buffers() if 'inv_freq' in name} == {torch.float32}


def test_weights_that_are_one_are_written_once(tmp_path):
    """Embeddings of words that are the head, too, as in small Qwens; what the library's class reads is the same."""
    family = FAMILIES['qwen2.5']
    config = family.config()
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = True
    model = SimpleNamespace(network=family.ours(config), dtype=torch.bfloat16, tokenizer=train_tokenizer(['a'], 300))
    runner = SimpleNamespace(model=model, work_dir=tmp_path, logger=logging.getLogger())
    SavePretrainedHook().save(runner, 'out')
    with safe_open(tmp_path / 'out/model.safetensors', 'pt') as file:
        assert 'model.embed_tokens.weight' in file.keys() and 'lm_head.weight' not in file.keys()
    theirs = family.library.from_pretrained(tmp_path / 'out', dtype='auto')
    assert torch.equal(theirs.lm_head.weight, model.network.lm_head.weight.bfloat16())


def test_adapters_are_merged_into_what_is_saved(checkpoint, room_data, monkeypatch):
    pytest.importorskip('peft')
    batch = spatial_collate([room_data()[0]])
    model = VideoLanguageModel(str(checkpoint), dict(pose=dict(mode='append')), tune='lora', lora=dict(r=2)).eval()
    for name, parameter in model.network.named_parameters():
        if 'lora_B' in name:
            torch.nn.init.normal_(parameter, std=0.1)
    plain = load_model(checkpoint, dict(pose=dict(mode='append'))).eval()
    assert (model(**batch) - plain(**batch['inputs']).logits).abs().max() > 1e-3
    plain.load_state_dict(merged_state(model.network))
    torch.testing.assert_close(plain(**batch['inputs']).logits, model(**batch), rtol=0, atol=1e-5)


def test_adapters_need_peft(checkpoint, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'peft', None)
    with pytest.raises(ImportError, match='pip install peft'):
        VideoLanguageModel(str(checkpoint), {}, tune='lora')


@pytest.mark.parametrize('path', LEAVES, ids=lambda path: path.stem)
def test_configs_build(path, environment, checkpoint):
    cfg = prepare_config(path)
    assert check_run(cfg, 'train') == check_run(cfg, 'test') == []
    spatial = cfg.model.spatial.to_dict()
    if spatial.get('connector'):
        spatial['connector']['geometry_dim'] = 8
    model = dict(cfg.model.to_dict(), spatial=spatial, tune='full', lora=None, frozen=())
    model.pop('type')
    assert VideoLanguageModel(**model).network.config.spatial == AutoConfig.for_model('qwen2_5_vl', spatial=spatial).spatial
    for name in ('train_dataloader', 'test_dataloader'):
        dataset = cfg[name].dataset
        assert Processor(**dataset.processor).source is None or spatial
        assert dataset.type == 'SpatialQADataset' and cfg[name].collate_fn.side == ('left' if 'test' in name else 'right')
