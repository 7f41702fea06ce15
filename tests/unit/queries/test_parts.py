"""Box codes, decoding, denoising, decoder layers, tokens."""

import math

import pytest
import torch
from torch import nn

from projects.memfusion.queries.bev_tokens import BEVTokens, BEVTokenSettings
from projects.memfusion.queries.boxes import BoxCode, DecodeSettings, decode_top
from projects.memfusion.queries.decoder import DecoderLayer, QueryDecoder, Tokens
from projects.memfusion.queries.denoising import Denoising
from projects.memfusion.queries.image_tokens import flat_tokens, shown_cells
from projects.memfusion.queries.references import grid_references, in_metres, refined
from projects.memfusion.structures import Calibration, SceneTruth

RANGE = (-40.0, -40.0, -5.0, 40.0, 40.0, 3.0)


def some_boxes(count, seed=0):
    """(n, 9), bottom centres."""
    torch.manual_seed(seed)
    return torch.cat([torch.rand(count, 2) * 20 - 10, torch.rand(count, 1) - 2, torch.rand(count, 3) * 4 + 0.5,
                      torch.rand(count, 1) * 6 - 3, torch.randn(count, 2)], dim=1)


def test_codes_by_hand_and_back():
    box = torch.tensor([1.0, 2.0, -1.0, 4.0, 2.0, 1.5, math.pi / 2, 3.0, 4.0])
    code = BoxCode('x y w l z h').encode(box)
    assert torch.allclose(code, torch.tensor([1, 2, math.log(2), math.log(4), -0.25, math.log(1.5), 1, 0, 3, 4]), atol=1e-6)
    assert BoxCode('x y w l z h').centre_columns == [0, 1, 4]
    old = BoxCode('x y w l z h', 'mmdet3d-0.x').encode(box)  # yaw -pi
    assert torch.allclose(old[6:8], torch.tensor([0.0, -1.0]), atol=1e-6)
    boxes = some_boxes(20)
    for order in ('x y z l w h', 'x y w l z h', 'x y l w z h'):
        for heading in ('ccw', 'mmdet3d-0.x'):
            back = BoxCode(order, heading).decode(BoxCode(order, heading).encode(boxes))
            turned = (back[:, 6] - boxes[:, 6] + math.pi).remainder(2 * math.pi) - math.pi
            assert turned.abs().max() < 1e-5 and torch.allclose(back[:, [0, 1, 2, 3, 4, 5, 7, 8]],
                                                                boxes[:, [0, 1, 2, 3, 4, 5, 7, 8]], atol=1e-5)
    assert BoxCode().encode(boxes[:, :7])[:, 8:].isnan().all()
    for wrong in (dict(order='x y z l w'), dict(heading='north')):
        with pytest.raises(ValueError, match='order must hold|heading must be one of'):
            BoxCode(**wrong)


def test_decoding_takes_the_best_scores_within_reach():
    boxes = some_boxes(6)[None].clone()
    boxes[0, 1, :2] = 60.0
    logits = torch.full((1, 6, 3), -9.0)
    logits[0, 0, 1], logits[0, 1, 2], logits[0, 4, 0], logits[0, 4, 2] = 1.0, 3.0, 2.0, 0.5
    (found,) = decode_top(logits, boxes, DecodeSettings(RANGE, max_num=4))
    assert found.labels.tolist() == [0, 1, 2] and torch.equal(found.boxes, boxes[0, [4, 0, 4]])
    assert torch.allclose(found.scores, torch.tensor([2.0, 1.0, 0.5]).sigmoid())
    (found,) = decode_top(logits, boxes, DecodeSettings(RANGE, max_num=4, score_threshold=0.7))
    assert found.labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match='max_num'):
        DecodeSettings(RANGE, max_num=0)


def test_noisy_queries_lie_around_their_boxes_and_know_who_may_read_them():
    boxes = (some_boxes(3), some_boxes(1, 1)[:, :7])
    truth = SceneTruth(boxes, (torch.tensor([0, 1, 2]), torch.tensor([1])))
    noisy = Denoising(groups=2, centre_noise=1.0, split=0.75).noisy(truth, BoxCode(), 5, RANGE)
    assert noisy.num == 6 and noisy.there.tolist() == [[True] * 6, [True, False, False] * 2]
    centres = boxes[0][:, :3] + torch.stack([torch.zeros(3), torch.zeros(3), boxes[0][:, 5] / 2], 1)
    offset = (noisy.boxes[0, :3, :3] - centres) / (boxes[0][:, 3:6] / 2)
    assert offset.abs().max() <= 1 + 1e-5
    assert torch.equal(noisy.labels[0, :3], torch.where(offset.norm(dim=1) > 0.75, 5, torch.arange(3)))
    assert torch.allclose(in_metres(noisy.points[0], RANGE), noisy.boxes[0, :, :3], atol=1e-4)
    assert torch.allclose(noisy.codes[0, 3:6], BoxCode().encode(boxes[0])) and noisy.codes[1, 0, 8:].isnan().all()
    may = noisy.allowed(2, num_memory=3)
    assert may.shape == (2, 8, 11) and not may[:, 6:, :6].any() and may[:, :, 6:].all()
    assert may[0, :3, :3].all() and not may[0, :3, 3:6].any()
    assert may[1, 0, :6].tolist() == [True] + [False] * 5 and may[1, 1, :6].tolist() == [True, True] + [False] * 4


def test_noisy_queries_of_no_box_are_padding():
    truth = SceneTruth((torch.zeros(0, 9),), (torch.zeros(0, dtype=torch.long),))
    noisy = Denoising(groups=3).noisy(truth, BoxCode(), 5, RANGE)
    assert noisy.num == 3 and not noisy.there.any() and (noisy.labels == 5).all() and torch.isfinite(noisy.points).all()
    with pytest.raises(ValueError, match='at least one group'):
        Denoising(groups=0)


def test_a_layer_is_the_published_order_of_torchs_parts():
    torch.manual_seed(0)
    layer = DecoderLayer(8, 2, 16, dropout=0.0).double().eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.4)
    queries, positions, memory = (torch.randn(2, n, 8, dtype=torch.float64) for n in (5, 5, 3))
    keys, values = torch.randn(2, 7, 8, dtype=torch.float64), torch.randn(2, 7, 8, dtype=torch.float64)

    def torchs(ours):
        theirs = nn.MultiheadAttention(8, 2, batch_first=True).double()
        theirs.load_state_dict(ours.state_dict())
        return theirs

    asked = torch.cat([queries + positions, memory], 1)
    x = queries + torchs(layer.self_attn)(queries + positions, asked, torch.cat([queries, memory / 2], 1))[0]
    x = layer.norms[0](x)
    x = layer.norms[1](x + torchs(layer.cross_attn)(x + positions, keys, values)[0])
    x = layer.norms[2](x + layer.ffn.reduce(layer.ffn.expand(x).relu()))
    found = layer(queries, positions, Tokens(keys, values), memory=Tokens(memory, memory / 2))
    assert torch.allclose(found, x, atol=1e-12)
    unread = Tokens(memory, memory, torch.zeros(2, 3, dtype=torch.bool))
    alone = layer(queries, positions, Tokens(keys, values))
    assert torch.allclose(layer(queries, positions, Tokens(keys, values), memory=unread), alone, atol=1e-12)


def test_checkpoints_change_nothing():
    torch.manual_seed(0)
    plain, spared = QueryDecoder(2, 8, 2, 16, 0.0), QueryDecoder(2, 8, 2, 16, 0.0, with_cp=True)
    spared.load_state_dict(plain.state_dict())
    given = torch.randn(1, 3, 8), torch.randn(1, 3, 8), Tokens(torch.randn(1, 4, 8), torch.randn(1, 4, 8))
    outputs = [decoder(*given) for decoder in (plain, spared)]
    assert outputs[0].shape == (2, 1, 3, 8) and torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    assert all(torch.allclose(a.grad, b.grad) for a, b in zip(plain.parameters(), spared.parameters()))


def test_tokens_join_and_nothing_is_an_error():
    one, two = Tokens(torch.ones(1, 2, 4), torch.ones(1, 2, 4)), Tokens(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4),
                                                                        torch.tensor([[False]]))
    joined = Tokens.join([one, two])
    assert joined.keys.shape == (1, 3, 4) and joined.keep.tolist() == [[True, True, False]]
    assert Tokens.join([one, one]).keep is None
    with pytest.raises(ValueError, match='nothing to attend to'):
        Tokens.join([])


def test_cells_of_padding_and_of_missing_cameras_are_not_shown():
    eye = torch.eye(4).expand(1, 2, 4, 4)
    k = torch.tensor([[30.0, 0, 16], [0, 30.0, 16], [0, 0, 1]]).expand(1, 2, 3, 3)
    whole = Calibration.from_matrices(k, eye, torch.tensor([[[32, 64], [32, 64]]]))
    assert shown_cells(whole, (2, 4)) is None
    mixed = Calibration.from_matrices(k, eye, torch.tensor([[[32, 64], [32, 40]]]))
    shown = shown_cells(mixed, (2, 4))
    assert shown[0, 0].all() and shown[0, 1].tolist() == [[True, True, False, False]] * 2
    assert shown_cells(mixed, (2, 4), offset=0.0)[0, 1].tolist() == [[True, True, True, False]] * 2
    masked = Calibration.from_matrices(k, eye, torch.tensor([[[32, 64], [32, 64]]]), cam_valid=torch.tensor([[True, False]]))
    assert shown_cells(masked, (2, 4)).flatten(2).all(2).tolist() == [[True, False]]


def test_tokens_stand_camera_row_column():
    level = torch.arange(2 * 3 * 2 * 2 * 4).view(2, 3, 2, 2, 4)
    assert torch.equal(flat_tokens(level)[1, (2 * 2 + 1) * 4 + 3], level[1, 2, :, 1, 3])


def test_bev_tokens_are_rows_of_pooled_cells():
    torch.manual_seed(0)
    tokens = BEVTokens(BEVTokenSettings(3, stride=2), 8, RANGE)
    bev = torch.randn(2, 3, 4, 6)
    found = tokens(bev)
    assert found.values.shape == (2, 6, 8) and found.keep is None
    cell = tokens.norm(tokens.project(bev[1, :, 2:4, 4:6].mean((1, 2))))
    assert torch.allclose(found.values[1, 1 * 3 + 2], cell, atol=1e-6)
    assert not torch.allclose(found.keys[0, 0] - found.values[0, 0], found.keys[0, 5] - found.values[0, 5], atol=1e-4)
    with pytest.raises(ValueError, match='stride=2'):
        tokens(torch.randn(1, 3, 5, 6))


def test_references():
    assert grid_references(2, 4)[5].tolist() == [0.375, 0.75]
    points = torch.rand(4, 3) * 0.9 + 0.05
    assert torch.allclose(refined(torch.zeros(4, 3), points), points, atol=1e-6)
