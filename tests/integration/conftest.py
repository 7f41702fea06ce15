"""The tools in one and in two processes, and a config small enough to train in seconds on the nano world."""

import os
import socket
import subprocess
import sys

import pytest
import torch

# The same for one process and for two: kernels round by how many threads share the work.
THREADS = dict(OMP_WAIT_POLICY='PASSIVE', OMP_NUM_THREADS='1')


def load(path):
    return torch.load(path, map_location='cpu', weights_only=False)['state_dict']


def largest_difference(a, b):
    assert a.keys() == b.keys()
    return max((a[key].double() - b[key].double()).abs().max().item() for key in a)


def free_port():
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return str(server.getsockname()[1])


@pytest.fixture(scope='session')
def run(tool):
    """A tool that must succeed."""
    def call(*arguments, **env):
        done = tool(*arguments, **{**THREADS, **env})
        assert done.returncode == 0, (done.stdout[-3000:] + done.stderr[-3000:])
        return done

    return call


@pytest.fixture(scope='session')
def distributed(repo):
    """dist_*.sh with two processes on CPU."""
    def call(script, *arguments):
        env = {**os.environ, **THREADS, 'PORT': free_port(), 'PYTHON': sys.executable, 'PYTHONWARNINGS': 'ignore'}
        done = subprocess.run(['bash', f'tools/{script}', *map(str, arguments)], cwd=repo, env=env, capture_output=True,
                              text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return call


@pytest.fixture(scope='session')
def nano_config(repo, nano_infos_root, tmp_path_factory):
    """Path of a leaf config: the demo model, narrower, on the nano world; 2 epochs, 2 workers, augmentation on."""
    root = f'{nano_infos_root}/'
    loader = f"dataset=dict(data_root='{root}')"
    path = tmp_path_factory.mktemp('configs') / 'xmem-gate_nano.py'
    path.write_text(f"""
_base_ = ['{repo}/configs/demo/xmem-gate_pillar04_second_secfpn_tiny-synthetic.py']
norm_cfg = dict(type='BN', eps=1e-3, momentum=0.1)
model = dict(
    pts_voxel_encoder=dict(feat_channels=[16]),
    pts_middle_encoder=dict(in_channels=16),
    pts_backbone=dict(in_channels=16, out_channels=[16, 16, 16], layer_nums=[1, 1, 1]),
    pts_neck=dict(in_channels=[16, 16, 16], out_channels=[16, 16, 16]),
    pts_bbox_head=dict(in_channels=48, share_conv_channel=16,
                       separate_head=dict(type='SeparateHead', head_conv=16, init_bias=-2.19, final_kernel=3)),
    temporal=dict(network=dict(in_channels=48, key_dim=8, value_dim=16, hidden_dim=8, feature_dim=16)))
train_dataloader = dict(dataset=dict(data_root='{root}', seq_len=2))
val_dataloader = dict({loader})
test_dataloader = dict({loader})
val_evaluator = dict(data_root='{root}', ann_file='{root}nuscenes_infos_val.pkl')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2, val_interval=10)
param_scheduler = [
    dict(type='OneCycleLR', eta_max=3e-3, pct_start=0.3, by_epoch=True, convert_to_iter_based=True, total_steps=2)]
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=-1, save_best=None), logger=dict(interval=1))
""")
    return path
