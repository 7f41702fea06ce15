"""Pictures of a test run on the nano world: of a query detector with memory, and of a fusion that writes the BEV."""

import cv2
import numpy as np
import pytest

from projects.memfusion.runtime import build_runner, prepare_config
from projects.memfusion.runtime.launch import apply_visualization

LEAF = """
_base_ = ['{repo}/configs/{leaf}_r18_pillar04_second_secfpn_tiny-synthetic.py']
model = dict(grid=dict(voxel_size=[0.8, 0.8, 8.0]), img_backbone=dict(base_channels=8), img_neck=dict(in_channels=[16, 32]))


def smaller(pipeline):
    sizes = dict(ResizeImages=dict(width=176), CropImages=dict(size=(96, 176)))
    return [dict(step, **sizes.get(step['type'], dict())) for step in pipeline]


test_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(data_root='{root}', pipeline=smaller(_base_.test_pipeline), indices=2))
del smaller
test_evaluator = dict(_delete_=True, type='DumpResults', out_file_path='{out}')
load_from = None
default_hooks = dict(visualization=dict(max_samples=1))
experiment_name = 'show_{name}'
"""


@pytest.mark.parametrize('leaf', ['query/streampetr', 'fusion/bevformer-lite'])
def test_pictures_of_a_test_run(repo, nano_infos_root, tmp_path, leaf):
    path = tmp_path / 'leaf.py'
    path.write_text(LEAF.format(repo=repo, root=f'{nano_infos_root}/', leaf=leaf, name=leaf.replace('/', '_'),
                                out=tmp_path / 'found.pkl'))
    cfg = prepare_config(path, dict(work_dir=str(tmp_path / 'work')))
    apply_visualization(cfg, False, str(tmp_path / 'shown'), 0.0, None, 0.0)
    build_runner(cfg, phase='test').test()
    pictures = sorted((tmp_path / 'shown').glob('*.png'))
    assert {'bev', 'cameras'} <= {path.stem.rsplit('_', 1)[1] for path in pictures}
    assert all(np.std(cv2.imread(str(path))) > 5 for path in pictures)
