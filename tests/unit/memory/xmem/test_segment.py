"""Inference on a clip: a small network without weights, and the published policy told again with lists and loops."""

import math

import pytest
import torch
from torch import nn

from projects.memfusion.memory.xmem import ClipSegmenter, InferenceSettings, segment_clip
from projects.memfusion.memory.xmem.segment import pad_to_stride, unpad


class SmallNetwork(nn.Module):
    """Keys are random projections of 16x16 means; every input of each method shows in its output."""

    hidden_dim = 2

    def __init__(self, key_dim=4):
        super().__init__()
        g = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(torch.randn(2 * key_dim + 1, 3, generator=g) * 4)
        self.key_dim = key_dim

    def encode_key(self, frame):
        f16 = nn.functional.avg_pool2d(frame, 16)
        key, selection, shrinkage = torch.einsum('dc,bchw->bdhw', self.weight, f16).split([self.key_dim, self.key_dim, 1], 1)
        return key, shrinkage.square() / 5 + 1, selection.sigmoid(), f16, 2 * f16, 3 * f16

    def encode_value(self, frame, f16, sensory, masks, deep_update):
        mask = nn.functional.avg_pool2d(masks, 16)[:, :, None]
        value = torch.cat([mask + frame.mean(), mask * f16[:, None], sensory], dim=2)  # B, K, 6, h, w
        return value, 0.7 * sensory + value[:, :, :2] if deep_update else sensory

    def segment(self, f16, f8, f4, readout, sensory, update_sensory=True):
        seen = readout.sum(2) - 0.4 + (f16 + f8 - f4).sum(1, keepdim=True) + sensory.sum(2)
        logits = seen.repeat_interleave(16, 2).repeat_interleave(16, 3)
        prob = torch.cat([torch.zeros_like(logits[:, :1]), logits], 1).softmax(1)
        return (0.5 * sensory + 0.1 * readout[:, :, :2].tanh() if update_sensory else sensory), logits, prob


def similarity(element, key, selection):
    return -element['shrinkage'] / math.sqrt(len(key)) * sum(
        e * (a - b) ** 2 for e, a, b in zip(selection, element['key'], key, strict=True))


def weights_of(elements, key, selection, top_k=None):
    """Softmax over all elements, or over the `top_k` most similar."""
    scores = [similarity(element, key, selection) for element in elements]
    kept = set(sorted(range(len(scores)), key=lambda n: -scores[n])[:top_k])
    exponentials = [math.exp(score) if n in kept else 0.0 for n, score in enumerate(scores)]
    return [e / sum(exponentials) for e in exponentials]


def usage_of(element):
    return element['use'] / element['life'] if element['life'] else 0.0


class ToldAgain:
    """The published inference with one dict for each element of memory, in Python's floats."""

    def __init__(self, network, objects, cells, mem_every=5, deep_update_every=-1, top_k=30, enable_long_term=True,
                 max_mid_term_frames=10, min_mid_term_frames=5, num_prototypes=128, max_long_term_elements=10000):
        self.network, self.objects, self.cells = network, objects, cells
        self.mem_every, self.deep_every, self.top_k, self.with_long = mem_every, deep_update_every, top_k, enable_long_term
        self.max_frames, self.min_frames = max_mid_term_frames, min_mid_term_frames
        self.prototypes, self.max_long = num_prototypes, max_long_term_elements
        self.frames, self.long, self.now, self.written, self.deep = [], [], -1, 0, -deep_update_every
        self.sensory, self.forgotten = None, 0

    def step(self, frame, mask):
        self.now += 1
        key, shrinkage, selection, *features = self.network.encode_key(frame[None])
        write = mask is not None or self.now - self.written >= self.mem_every
        if self.deep_every < 0:
            deep, normal = write, not write
        else:
            deep, normal = self.now - self.deep >= self.deep_every, True
        if mask is None:
            readout = self.read(key, selection)
            hidden, _, prob = self.network.segment(*features, readout, self.sensory)
            self.sensory = hidden if normal else self.sensory
        else:
            alone = torch.cat([(1 - mask).prod(0, keepdim=True), mask]).clamp(1e-7, 1 - 1e-7)[None]
            prob = alone / (1 - alone) / (alone / (1 - alone)).sum(1, keepdim=True)
            if self.sensory is None:
                self.sensory = torch.zeros(1, self.objects, 2, *key.shape[2:])
        if write:
            value, hidden = self.network.encode_value(frame[None], features[0], self.sensory, prob[:, 1:], deep)
            self.write(key[0].flatten(1), shrinkage[0].flatten(), selection[0].flatten(1), value[0].flatten(2))
            self.written = self.now
            if deep:
                self.sensory, self.deep = hidden, self.now
        return prob[0]

    def read(self, key, selection):
        elements = [*self.long, *[element for frame in self.frames for element in frame]]
        for element in elements:
            element['life'] += 1
        columns = []
        for query, chosen in zip(key[0].flatten(1).T.tolist(), selection[0].flatten(1).T.tolist(), strict=True):
            weights = weights_of(elements, query, chosen, self.top_k)
            columns.append(sum(w * element['value'] for w, element in zip(weights, elements, strict=True) if w))
            for w, element in zip(weights, elements, strict=True):
                element['use'] += w
        return torch.stack(columns, -1).float().view(1, self.objects, -1, *key.shape[2:])

    def write(self, key, shrinkage, selection, value):
        self.frames.append([dict(key=key[:, n].tolist(), shrinkage=shrinkage[n].item(), selection=selection[:, n].tolist(),
                                 value=value[..., n].double(), use=0.0, life=0) for n in range(self.cells)])
        if not self.with_long or len(self.frames) < self.max_frames:
            return
        if len(self.long) > self.max_long - self.prototypes:
            by_usage = sorted(usage_of(e) for e in self.long)
            last_gone = by_usage[len(self.long) - (self.max_long - self.prototypes) - 1]
            before = len(self.long)
            self.long = [e for e in self.long if usage_of(e) > last_gone]
            self.forgotten += before - len(self.long)
        stay = self.min_frames - 1
        leave = self.frames[1:len(self.frames) - stay]
        self.frames = [self.frames[0], *self.frames[len(self.frames) - stay:]] if stay else self.frames[:1]
        candidates = [element for frame in leave for element in frame]
        ranked = sorted(candidates, key=usage_of, reverse=True)
        if len(ranked) > self.prototypes:  # otherwise the choice is arbitrary and this comparison means nothing
            assert usage_of(ranked[self.prototypes - 1]) > usage_of(ranked[self.prototypes]) * 1.0001
        made = []
        for chosen in ranked[:self.prototypes]:
            weights = weights_of(candidates, chosen['key'], chosen['selection'])
            made.append(dict(key=chosen['key'], use=0.0, life=0, **{
                name: sum(w * e[name] for w, e in zip(weights, candidates, strict=True)) for name in ('shrinkage', 'value')}))
        self.long += made

    @property
    def sizes(self):
        return len(self.frames) * self.cells, len(self.long)


def random_clip(frames=60, objects=2, height=32, width=48, seed=0):
    g = torch.Generator().manual_seed(seed)
    clip = nn.functional.interpolate(torch.randn(frames, 3, height // 16, width // 16, generator=g), scale_factor=16)
    owner = torch.randint(0, objects + 1, (height // 8, width // 8), generator=g)
    mask = torch.stack([owner == k + 1 for k in range(objects)]).float()
    return clip * 0.2, mask.repeat_interleave(8, 1).repeat_interleave(8, 2)


SMALL = dict(mem_every=1, max_mid_term_frames=4, min_mid_term_frames=2, num_prototypes=5, max_long_term_elements=12)
CASES = {  # objects, the frame at which masks are given anew, settings
    'cut_off_in_between': (2, 18, dict(SMALL, top_k=6)),
    'exactly_full': (3, 17, dict(SMALL, mem_every=2, deep_update_every=3, top_k=None, num_prototypes=4)),
    'one_object_only_the_first_stays': (1, 17, dict(SMALL, top_k=1000, max_mid_term_frames=3, min_mid_term_frames=1,
                                                num_prototypes=6, max_long_term_elements=6, deep_update_every=0)),
    'unequal_strides': (2, 17, dict(SMALL, mem_every=3, deep_update_every=5, top_k=2, max_mid_term_frames=6,
                                    min_mid_term_frames=3, num_prototypes=7, max_long_term_elements=20)),
    'no_long_term': (1, 17, dict(mem_every=4, top_k=5, enable_long_term=False)),
}


@pytest.mark.parametrize('objects, later, settings', CASES.values(), ids=CASES.keys())
def test_equals_the_policy_told_again(objects, later, settings):
    network = SmallNetwork()
    frames, mask = random_clip(objects=objects)
    segmenter, oracle = ClipSegmenter(network, InferenceSettings(**settings)), ToldAgain(network, objects, 6, **settings)
    with torch.no_grad():
        for t, frame in enumerate(frames):
            given = mask if t == 0 else mask.flip(1) if t == later else None  # masks may also come in between
            prob, expected = segmenter.step(frame, given), oracle.step(frame, given)
            assert segmenter.memory_sizes == oracle.sizes, t
            # Rounding only: float32 similarities of up to about 20, their differences amplified by softmax.
            assert (prob - expected).abs().max() < 2e-5, t
            assert (segmenter.sensory - oracle.sensory).abs().max() < 2e-4, t
            if settings.get('enable_long_term', True):
                working, long_term = segmenter.memory_sizes
                assert working < settings['max_mid_term_frames'] * 6 and long_term <= settings['max_long_term_elements']
    assert oracle.forgotten > 0 or settings.get('enable_long_term') is False


def test_exactly_full_long_term_is_kept_whole():
    frames, mask = random_clip(frames=40)
    settings = InferenceSettings(**dict(SMALL, top_k=None, num_prototypes=4))
    segmenter, seen = ClipSegmenter(SmallNetwork(), settings), []
    for t, frame in enumerate(frames):
        segmenter.step(frame, None if t else mask)
        seen.append(segmenter.memory_sizes[1])
    assert sorted(set(seen)) == [0, 4, 8, 12] and seen[-1] == 12  # at 8 nothing is surplus, and nothing goes


def test_segment_clip_is_the_steps(network):
    frames, mask = random_clip(frames=9, objects=2)
    small = SmallNetwork()
    settings = dict(SMALL, top_k=3, deep_update_every=2)
    segmenter = ClipSegmenter(small, InferenceSettings(**settings))
    steps = [segmenter.step(frame, mask if t == 0 else None) for t, frame in enumerate(frames)]
    assert torch.equal(segment_clip(small, frames, mask, **settings), torch.stack(steps))
    one = segment_clip(small, frames[:1], mask)
    assert one.shape == (1, 3, 32, 48) and torch.equal(one[0], steps[0]) and not one.requires_grad
    assert torch.allclose(one[0, 1:], mask, atol=1e-6)


def test_odd_sizes_are_padded_as_published_and_cut_back():
    image = torch.randint(1, 9, (1, 90, 117)).float()
    padded, margins = pad_to_stride(image)
    assert margins == (5, 6, 3, 3) and padded.shape == (1, 96, 128)
    assert torch.equal(padded[:, 3:93, 5:122], image) and padded.sum() == image.sum()
    assert torch.equal(unpad(padded, margins), image)
    assert pad_to_stride(image[:, :80, :112])[1] == (0, 0, 0, 0)


def test_full_network_on_odd_sizes_in_training_mode(network, seeded_clip):
    """Padding by hand gives the same; and batch statistics are neither used nor touched."""
    frames, mask = seeded_clip(3, 3, 40, 54, 3)
    frames, mask = frames[:, :, 1:], mask[:, 1:]  # 39 x 54 -> 48 x 64: 4 above, 5 below, 5 on either side
    margins = (5, 5, 4, 5)
    by_hand = segment_clip(network, nn.functional.pad(frames, margins), nn.functional.pad(mask, margins), mem_every=1)
    before = {name: value.clone() for name, value in network.named_buffers()}
    network.train()
    network.key_encoder.eval()
    try:
        prob = segment_clip(network, frames, mask, mem_every=1)
        assert network.training and network.decoder.training and not network.key_encoder.layer3.training
    finally:
        network.eval()
    assert torch.equal(prob, by_hand[:, :, 4:43, 5:59])
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())


@pytest.mark.parametrize('settings, named', [
    (dict(min_mid_term_frames=4), 'min_mid_term_frames=4'),
    (dict(min_mid_term_frames=0), 'min_mid_term_frames'),
    (dict(max_long_term_elements=4), 'max_long_term_elements=4'),
    (dict(num_prototypes=13, max_long_term_elements=100), 'num_prototypes=13, but only 12'),
    (dict(num_prototypes=0), 'num_prototypes'),
    (dict(mem_every=0), 'mem_every'),
    (dict(top_k=0), 'top_k'),
    (dict(top_k=2.5), 'top_k'),
])
def test_settings_that_cannot_work_are_named(settings, named):
    frames, mask = random_clip(frames=4)
    with pytest.raises(ValueError, match=named):
        segment_clip(SmallNetwork(), frames, mask, **{**SMALL, **settings})


def test_short_clips_do_not_feel_a_small_working_memory():
    """The published defaults, on a clip that ends before consolidation would lack candidates; a stream must not begin."""
    frames, mask = random_clip(frames=46)
    assert segment_clip(SmallNetwork(), frames[:45], mask).shape[0] == 45
    with pytest.raises(ValueError, match='num_prototypes=128, but only 30'):
        segment_clip(SmallNetwork(), frames, mask)
    with pytest.raises(ValueError, match='num_prototypes=128'):
        ClipSegmenter(SmallNetwork()).step(frames[0], mask)


def test_inputs_that_do_not_fit_are_named():
    frames, mask = random_clip(frames=3)
    network = SmallNetwork()
    for bad in (mask[:0], mask[:, :-1], mask[0]):
        with pytest.raises(ValueError, match='mask of frame 0'):
            segment_clip(network, frames, bad)
    with pytest.raises(ValueError, match='first_mask is missing'):
        segment_clip(network, frames, None)
    with pytest.raises(ValueError, match='frames'):
        segment_clip(network, frames[:0], mask)
    with pytest.raises(ValueError, match='float'):
        segment_clip(network, frames.to(torch.uint8), mask)
    segmenter = ClipSegmenter(network, InferenceSettings(**SMALL))
    with pytest.raises(ValueError, match='first frame needs a mask'):
        segmenter.step(frames[0])
    segmenter.step(frames[0], mask)
    with pytest.raises(ValueError, match='frame 1 is'):
        segmenter.step(frames[1, :, :-1])
    with pytest.raises(ValueError, match='1 objects'):
        segmenter.step(frames[1], mask[:1])
    assert torch.isfinite(segmenter.step(frames[1])).all()  # a refused step changes nothing
