"""Camera and BEV metrics: scores worked out by hand, any split over processes, and what is wrong with a sample by name."""

import json
import multiprocessing
import socket

import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData

from projects.memfusion.metrics import BEVSegMetric, ImageBBoxMetric, ImageSegMetric
from projects.memfusion.metrics import nuscenes_metric as base_module
from projects.memfusion.metrics.image_bbox_metric import depth_errors
from projects.memfusion.metrics.segmentation_metric import IoUMetric
from projects.memfusion.structures.image_labels import ImageLabels

META = dict(classes=('car', 'bus'))
SQUARE = [10.0, 10.0, 20.0, 20.0]


def labels(boxes=(), classes=(), depths=(), sem_seg=None):
    return ImageLabels(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(classes, dtype=torch.long),
                       torch.tensor(depths, dtype=torch.float32), sem_seg)


def found(boxes=(), classes=(), depths=(), scores=()):
    return InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                        labels=torch.tensor(classes, dtype=torch.long), depth_m=torch.tensor(depths, dtype=torch.float32),
                        scores=torch.tensor(scores, dtype=torch.float32))


def box_sample(index, truth, predicted):
    return dict(sample_idx=index, gt_img_labels=tuple(truth), pred_img_boxes=list(predicted))


def evaluate(metric, samples, meta=META):
    metric.dataset_meta = meta
    metric.process({}, samples)
    return {name.split('/')[1]: value for name, value in metric.evaluate(len(samples)).items()}


# COCO reads precision at 101 recalls 0, 0.01, ..., 1.


def test_perfect_boxes_score_one():
    samples = [box_sample(0, [labels([SQUARE], [0], [10.0]), labels([SQUARE], [1], [5.0])],
                          [found([SQUARE], [0], [10.0], [0.9]), found([SQUARE], [1], [5.0], [0.3])])]
    values = evaluate(ImageBBoxMetric(), samples)
    assert values == pytest.approx(dict(mAP=1, AP50=1, AP75=1, AP_car=1, AP_bus=1, num_truth=2, num_depth=2, depth_error_m=0,
                                        depth_error_rel=0))


def test_ap_by_hand():
    """Two cars in two cameras. Best score: a wrong box (precision 0), then a hit of IoU 0.8 (1/2), then one of 0.6 (2/3)."""
    truth = [labels([SQUARE], [0], [10.0]), labels([SQUARE], [0], [20.0])]
    predicted = [found([[50.0, 50, 60, 60], [10.0, 10, 20, 18]], [0, 0], [1.0, 11.0], [0.9, 0.8]),
                 found([[10.0, 10, 20, 16]], [0], [16.0], [0.7])]
    values = evaluate(ImageBBoxMetric(), [box_sample(0, truth, predicted)])
    # IoU 0.5 and 0.55: recall 1/2 at 1/2, recall 1 at 2/3; interpolated precision is 2/3 everywhere. (0.6 of a 32-bit box is
    # 0.6 exactly: 60 / 100.) From 0.65 to 0.8 one hit: precision 1/2 at the 51 recalls up to 1/2. Then nothing.
    one_hit = 0.5 * 51 / 101
    assert values['AP50'] == pytest.approx(2 / 3)
    assert values['AP75'] == pytest.approx(one_hit)
    assert values['AP_car'] == values['mAP'] == pytest.approx((3 * 2 / 3 + 4 * one_hit) / 10)
    assert 'AP_bus' not in values
    # found at IoU 0.5: 11 m for 10 m, 16 m for 20 m
    assert values['depth_error_m'] == pytest.approx(2.5) and values['depth_error_rel'] == pytest.approx(0.15)
    assert values['num_truth'] == values['num_depth'] == 2


def test_boxes_of_other_cameras_classes_and_samples_do_not_match():
    truth = [labels([SQUARE], [0], [10.0]), labels()]
    swapped = [found(), found([SQUARE], [0], [10.0], [0.9])]
    other_class = [found([SQUARE], [1], [10.0], [0.9]), found()]
    for predicted in (swapped, other_class):
        values = evaluate(ImageBBoxMetric(), [box_sample(0, truth, predicted)])
        assert values['mAP'] == values['AP50'] == 0 and values['num_depth'] == 0 and 'depth_error_m' not in values
    values = evaluate(ImageBBoxMetric(), [box_sample(0, truth, [found(), found()]),
                                          box_sample(1, [labels(), labels()], [found([SQUARE], [0], [1.0], [0.9]), found()])])
    assert values['mAP'] == 0


def test_only_the_best_boxes_of_an_image_count():
    many = found([[50.0, 50, 60, 60]] * 3 + [SQUARE], [0] * 4, [1.0] * 4, [0.9, 0.8, 0.7, 0.6])
    samples = [box_sample(0, [labels([SQUARE], [0], [1.0])], [many])]
    assert evaluate(ImageBBoxMetric(max_boxes=3), samples)['AP50'] == 0
    assert evaluate(ImageBBoxMetric(max_boxes=4), samples)['AP50'] == pytest.approx(0.25)


def test_depth_of_a_box_beside_the_camera_does_not_count():
    values = depth_errors(np.array([10.0, -2.0, 0.05]), np.array([12.0, 3.0, 3.0]))
    assert values == pytest.approx(dict(num_depth=1, depth_error_m=2.0, depth_error_rel=0.2))


def random_box_samples(count=7):
    rng = np.random.default_rng(3)
    samples = []
    for index in range(count):
        truth, predicted = [], []
        for _ in range(2):
            corner = rng.integers(0, 80, (4, 2))
            boxes = np.concatenate([corner, corner + rng.integers(5, 20, (4, 2))], axis=1).astype(float)
            kinds, depths = rng.integers(0, 2, 4), rng.uniform(2, 40, 4)
            truth.append(labels(boxes, kinds, depths))
            moved = np.concatenate([boxes + rng.integers(-2, 3, (4, 4)), boxes[:2] + 9])
            predicted.append(found(moved, [*kinds, 0, 1], [*(depths * 1.1), 3.0, 4.0], np.round(rng.uniform(0, 1, 6), 1)))
        samples.append(box_sample(index, truth, predicted))
    return samples


def test_any_split_over_ranks_scores_the_same(monkeypatch):
    """Ties in score (they are rounded) are decided by the order of the data set; repeated samples count once."""
    samples = random_box_samples()
    expected = evaluate(ImageBBoxMetric(), samples)
    metric = ImageBBoxMetric()
    metric.dataset_meta = META
    metric.process({}, [samples[index] for index in (4, 1, 6, 0, 2, 5, 3, 0)])
    ranks = [metric.results[:3], [], metric.results[3:]]
    monkeypatch.setattr(base_module, 'all_gather_object', lambda results: ranks)
    assert {name.split('/')[1]: value for name, value in metric.evaluate(len(samples)).items()} == expected
    assert 0.05 < expected['mAP'] < 0.95


def run_rank(rank, port, samples, folder):
    """One of two processes: it scores every second sample and writes what it was told."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
    metric = ImageBBoxMetric()
    metric.dataset_meta = META
    metric.process({}, samples[rank::2])
    (folder / str(rank)).write_text(json.dumps(metric.evaluate(len(samples))))
    torch.distributed.destroy_process_group()


def test_two_processes_are_one(tmp_path):
    samples = random_box_samples()
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context('fork')  # not a new interpreter: importing mmdet3d takes longer than all of this
    ranks = [context.Process(target=run_rank, args=(rank, port, samples, tmp_path)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
        assert rank.exitcode == 0
    expected = {f'image_bbox/{name}': value for name, value in evaluate(ImageBBoxMetric(), samples).items()}
    for rank in range(2):
        assert json.loads((tmp_path / str(rank)).read_text()) == expected


# Semantic ids with these classes: car 0, bus 1, ground 2, static 3, sky 4.


def seg_sample(index, truth, predicted):
    cameras = tuple(labels(sem_seg=torch.tensor(one, dtype=torch.uint8)) for one in truth)
    return dict(sample_idx=index, gt_img_labels=cameras, pred_img_sem_seg=torch.tensor(predicted, dtype=torch.uint8))


def test_image_iou_by_hand():
    """The prediction is larger than the image (padding), 255 in the truth does not count, 255 in the prediction is wrong."""
    truth = [[[0, 0, 2], [255, 4, 4]]]
    predicted = [[[0, 2, 2, 1], [1, 4, 255, 1], [3, 3, 3, 3]]]
    values = evaluate(ImageSegMetric(), [seg_sample(0, truth, predicted)])
    assert values == pytest.approx(dict(IoU_car=1 / 2, IoU_ground=1 / 2, IoU_sky=1 / 2, mIoU=1 / 2))


def test_pixels_of_all_cameras_and_samples_count_together():
    first = seg_sample(0, [[[0, 0]], [[2, 2]]], [[[0, 1]], [[2, 2]]])
    second = seg_sample(1, [[[0, 2]], [[4, 255]]], [[[0, 0]], [[4, 0]]])
    values = evaluate(ImageSegMetric(), [first, second])
    # car: both 2, union 3 true + 3 predicted - 2; ground: 2 of 3; sky: 1 of 1; bus: predicted once, never true
    assert values == pytest.approx(dict(IoU_car=2 / 4, IoU_bus=0, IoU_ground=2 / 3, IoU_sky=1, mIoU=(0.5 + 0 + 2 / 3 + 1) / 4))


@pytest.mark.parametrize('predicted, word', [([[[0]]], 'smaller than the truth'), ([[[0, 5]]], 'holds class 5, there are 5')])
def test_wrong_pixel_maps_are_named(predicted, word):
    with pytest.raises(ValueError, match=f'sample 0.*{word}'):
        evaluate(ImageSegMetric(), [seg_sample(0, [[[0, 0]]], predicted)])


RANGE = [-4.0, -4.0, -5.0, 4.0, 4.0, 3.0]  # 8 x 8 cells of 1 m in these tests


def bev_sample(index, boxes, kinds, probability):
    tensor = torch.tensor([[x, y, -1.0, length, width, 2.0, yaw, 0, 0] for x, y, length, width, yaw in boxes]).reshape(-1, 9)
    return dict(sample_idx=index, pred_bev_seg=probability,
                eval_ann_info=dict(gt_bboxes_3d=LiDARInstance3DBoxes(tensor, box_dim=9), gt_labels_3d=np.array(kinds)))


def test_bev_iou_by_hand():
    """A car over rows 4-5 (y 0..2) and columns 4-7 (x 0..4): 8 cells. Predicted: columns 4-5 of it and 2 cells elsewhere."""
    probability = torch.zeros(2, 8, 8)
    probability[0, 4:6, 4:6] = 0.5  # the threshold itself counts
    probability[0, 0, :2] = 0.9
    probability[0, 7, 7] = 0.49
    sample = bev_sample(0, [(2.0, 1.0, 4.0, 2.0, 0.0)], [0], probability)
    values = evaluate(BEVSegMetric(dict(car=['car'], bus=['bus']), RANGE), [sample])
    assert values == pytest.approx(dict(IoU_car=4 / (8 + 6 - 4), mIoU=0.4))  # there is no bus anywhere


def test_bev_groups_unite_classes_and_samples():
    """A bus turned by a quarter (2 x 4 cells) beside a car; an object of no class is not drawn."""
    boxes = [(2.0, 1.0, 4.0, 2.0, 0.0), (-1.0, 0.0, 4.0, 2.0, float(np.pi / 2)), (-3.5, -3.5, 1.0, 1.0, 0.0)]
    everything = torch.ones(1, 8, 8)
    samples = [bev_sample(0, boxes, [0, 1, -1], everything), bev_sample(1, [], [], torch.zeros(1, 8, 8))]
    assert evaluate(BEVSegMetric(dict(occupied=['car', 'bus']), RANGE), samples)['IoU_occupied'] == pytest.approx(16 / 64)
    assert evaluate(BEVSegMetric(dict(occupied=['bus']), RANGE), samples)['IoU_occupied'] == pytest.approx(8 / 64)
    for sample in samples:
        sample['pred_occupancy'] = sample.pop('pred_bev_seg')
    metric = BEVSegMetric(dict(occupied=['car', 'bus']), RANGE, field='pred_occupancy')
    assert evaluate(metric, samples)['IoU_occupied'] == pytest.approx(16 / 64)


def test_masked_cameras_are_left_out_and_nothing_labelled_gives_no_score():
    alone = evaluate(ImageSegMetric(), [seg_sample(0, [[[0, 1]]], [[[0, 0]]])])
    masked = seg_sample(0, [[[0, 1]], [[0, 1]]], [[[0, 0]], [[1, 1]]])
    masked['gt_img_labels'] = (masked['gt_img_labels'][0], labels())
    assert evaluate(ImageSegMetric(), [masked]) == alone and alone['mIoU'] == 0.25
    assert evaluate(ImageBBoxMetric(), [box_sample(0, [labels()], [found()])]) == dict(num_truth=0)
    assert evaluate(ImageSegMetric(), [seg_sample(0, [[[255]]], [[[0]]])]) == {}


def test_what_a_sample_lacks_is_named():
    truth, predicted = [labels([SQUARE], [0], [1.0])], [found([SQUARE], [0], [1.0], [0.5])]
    bev = bev_sample(0, [], [], torch.zeros(1, 8, 8))
    groups = dict(car=['car'])
    for metric, sample, message in (
        (ImageBBoxMetric(), dict(sample_idx=3, pred_img_boxes=predicted), 'sample 3 has no gt_img_labels: put LoadImageLabels'),
        (ImageBBoxMetric(), dict(sample_idx=3, gt_img_labels=truth), 'sample 3 has no pred_img_boxes'),
        (ImageBBoxMetric(), box_sample(3, truth, predicted * 2), 'labels of 1 cameras and predictions of 2'),
        (ImageBBoxMetric(), box_sample(3, truth, [found([SQUARE], [7], [1.0], [0.5])]), 'must be 0 to 1, got 7'),
        (ImageBBoxMetric(), box_sample(3, truth, [found([SQUARE], [0], [1.0], [np.nan])]), 'sample 3.*NaN'),
        (BEVSegMetric(groups, RANGE), dict(bev, eval_ann_info=None), 'sample 0 has no eval_ann_info: .*test_mode'),
        (BEVSegMetric(dict(a=['car'], b=['bus']), RANGE), bev, r'\(1, 8, 8\).*same groups'),
        (BEVSegMetric(dict(a=['tram']), RANGE), bev, "no class 'tram'"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(metric, [sample])


def test_a_frame_that_could_not_be_loaded_counts_for_nothing():
    whole = box_sample(0, [labels([SQUARE], [0], [1.0])], [found([SQUARE], [0], [1.0], [0.5])])
    dropped = dict(sample_idx=1, frame_valid=False)
    assert evaluate(ImageBBoxMetric(), [whole, dropped])['mAP'] == pytest.approx(1.0)
    pixels = seg_sample(0, [[[0]]], [[[0]]])
    assert evaluate(ImageSegMetric(), [pixels, dropped])['mIoU'] == 1.0


def test_a_segmentation_metric_reads_no_boxes_unless_it_says_so(monkeypatch):
    """The base keeps nothing by itself, and what to do where nothing is labelled is each metric's own."""
    class Forgot(IoUMetric):
        def names(self):
            return ('car',)

    with pytest.raises(TypeError, match='process'):
        Forgot()
    told = []
    for metric, sample in (
        (BEVSegMetric(dict(vehicle=['car', 'bus']), [-4.0, -4, -1, 4, 4, 1]),
         dict(pred_bev_seg=torch.zeros(1, 8, 8), eval_ann_info=dict(
             gt_bboxes_3d=LiDARInstance3DBoxes(torch.zeros(0, 7)), gt_labels_3d=np.zeros(0, dtype=np.int64)))),
        (ImageSegMetric(), dict(pred_img_sem_seg=torch.zeros(1, 2, 2, dtype=torch.uint8), gt_img_labels=(labels(),))),
    ):
        monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', told.append)
        assert evaluate(metric, [dict(sample, sample_idx=0)]) == {}
    assert 'bev_seg: nothing is labelled, so there is no score (the data set has no boxes)' in told[0]
    assert 'image_seg: nothing is labelled' in told[1] and 'pixel labels come from' in told[1] and 'no boxes' not in told[1]
