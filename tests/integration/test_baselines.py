"""mmdet3d's own baselines on the nano world: their loading chain with CBGS and GT-paste, their checkpoints, CPU inference."""

import copy

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope

PILLAR = 'configs/lidar/centerpoint_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
VOXEL = 'configs/lidar/centerpoint_voxel01_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
ANCHOR = 'configs/lidar/pointpillars_hv_fpn_sbn-all_8xb4-2x_nus-3d.py'
ANCHOR_SECFPN = 'configs/lidar/pointpillars_hv_secfpn_sbn-all_8xb4-2x_nus-3d.py'
GATED = 'configs/temporal/xmem-gate_pillar02_second_secfpn_8xb4-cyclic-20e_nus-3d.py'
GATED_ANCHOR = 'configs/temporal/xmem-gate-anchor3d_pillar025_second_secfpn_8xb4-2x_nus-3d.py'


@pytest.fixture(scope='module')
def load(repo, nano_infos_root):
    init_default_scope('mmdet3d')
    root = f'{nano_infos_root}/'

    def read(path):
        text = Config.fromfile(repo / path)
        for split in ('train', 'val'):
            dataset = text[f'{split}_dataloader'].dataset
            while 'dataset' in dataset:
                dataset = dataset.dataset
            dataset.data_root = root
            for step in dataset.pipeline:
                if step.type == 'SeededObjectSample':
                    step.db_sampler.update(data_root=root, info_path=root + 'nuscenes_dbinfos_train.pkl')
        return text

    return read


def test_class_balanced_resampling_and_gt_paste(load):
    cfg = load(PILLAR)
    pasted = DATASETS.build(cfg.train_dataloader.dataset)
    bare_cfg = copy.deepcopy(cfg.train_dataloader.dataset)
    bare_cfg.dataset.pipeline = [step for step in bare_cfg.dataset.pipeline if step.type != 'SeededObjectSample']
    bare = DATASETS.build(bare_cfg)
    assert len(pasted) > len(pasted.dataset) and list(pasted.sample_indices) == list(bare.sample_indices)
    boxes = [len(d[0]['data_samples'].gt_instances_3d) for d in (bare, pasted)]
    assert boxes[1] > boxes[0]
    # What is pasted does not depend on what the worker drew before.
    pasted.set_epoch(0)
    alone = pasted[7]['data_samples'].gt_instances_3d.bboxes_3d.tensor
    for index in (3, 1, 5):
        pasted[index]
    assert torch.equal(alone, pasted[7]['data_samples'].gt_instances_3d.bboxes_3d.tensor)
    # Repeats of a sample differ, the same item does not, and another epoch does.
    pasted.set_epoch(0)
    first = pasted[0]['inputs']['points']
    assert torch.equal(first, pasted[0]['inputs']['points'])
    twin = next(i for i in range(1, len(pasted)) if pasted.sample_indices[i] == pasted.sample_indices[0])
    assert not torch.equal(first, pasted[twin]['inputs']['points'])
    pasted.set_epoch(1)
    assert not torch.equal(first, pasted[0]['inputs']['points'])


@pytest.mark.parametrize('path', [PILLAR, VOXEL, ANCHOR])
def test_predicts_on_cpu(load, path):
    cfg = load(path)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    item = DATASETS.build(cfg.val_dataloader.dataset)[1]
    with torch.no_grad():
        sample, = model(**model.data_preprocessor(pseudo_collate([item])), mode='predict')
    instances = sample.pred_instances_3d
    assert instances.bboxes_3d.tensor.shape[1] == 9 and torch.isfinite(instances.bboxes_3d.tensor).all()
    assert ((instances.scores_3d >= 0) & (instances.scores_3d <= 1)).all()


def test_sparse_encoder_on_cpu_equals_dense_convolution():
    """The native algorithm computes what a dense convolution does where everything is occupied."""
    import spconv.pytorch as spconv
    torch.manual_seed(0)
    sparse = spconv.SubMConv3d(3, 4, 3, bias=False, algo=spconv.ConvAlgo.Native)
    grid = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(5), torch.arange(6), indexing='ij'), dim=-1).view(-1, 3)
    features = torch.randn(len(grid), 3)
    coors = torch.cat([torch.zeros(len(grid), 1), grid], dim=1).int()
    with torch.no_grad():
        out = sparse(spconv.SparseConvTensor(features, coors, [4, 5, 6], 1)).dense()
        dense = torch.zeros(1, 3, 4, 5, 6)
        dense[0, :, grid[:, 0], grid[:, 1], grid[:, 2]] = features.T
        weight = sparse.weight.permute(0, 4, 1, 2, 3)  # (out, k, k, k, in) -> (out, in, k, k, k)
        expected = torch.nn.functional.conv3d(dense, weight, padding=1)
    assert (out - expected).abs().max() < 1e-5


@pytest.mark.parametrize('baseline, memory', [(PILLAR, GATED), (ANCHOR_SECFPN, GATED_ANCHOR)])
def test_mmdet3d_checkpoints_load_into_the_gated_model(baseline, memory, load, tmp_path):
    """A checkpoint of mmdet3d's detector fills all slots but `temporal`, and alpha=0 then predicts what it predicts."""
    from projects.memfusion.runtime import load_weights, safe_load
    torch.manual_seed(0)
    published = MODELS.build(load(baseline).model).eval()
    path = tmp_path / 'published.pth'
    torch.save({'state_dict': published.state_dict(), 'meta': {}}, path)
    cfg = load(memory)
    assert cfg.class_names == load(baseline).class_names
    cfg.model.temporal.alpha = 0.0
    gated = MODELS.build(cfg.model).eval()
    load_weights(gated, safe_load(str(path)), str(path), allow_missing_slots=True)
    item = DATASETS.build(cfg.val_dataloader.dataset)[0]
    with torch.no_grad():
        ours, = gated(**gated.data_preprocessor(pseudo_collate([copy.deepcopy(item)])), mode='predict')
        theirs, = published(**published.data_preprocessor(pseudo_collate([item[0]])), mode='predict')
    a, b = ours.pred_instances_3d, theirs.pred_instances_3d
    assert len(a) == len(b) > 0
    assert torch.equal(a.scores_3d, b.scores_3d) and torch.equal(a.bboxes_3d.tensor, b.bboxes_3d.tensor)
    assert np.isfinite(a.scores_3d.numpy()).all()
