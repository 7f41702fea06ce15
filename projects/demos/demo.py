"""Demo. In: nothing. Out: data, a trained detector, official scores beside an untrained one's, pictures. Runs the tools."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from nuscenes.nuscenes import NuScenes

from projects.memfusion.metrics.class_ap import demo_map
from projects.memfusion.runtime.errors import UserError
from projects.memfusion.runtime.launch import init_registry
from projects.memfusion.runtime.options import OptionsAction
from projects.reports import PlayedScene

from .demo_report import report_demo
from .hidden_pictures import find_hidden
from .played_scene import MOST_FRAMES, played
from .recorded_steps import stream_memory
from .scene_pictures import draw_scene
from .streaming import find_scene, load_detector

CONFIG = 'configs/demo/copy_pillar04_second_secfpn_tiny-synthetic.py'
PHASE1 = 'configs/demo/copy-phase1_pillar04_second_secfpn_tiny-synthetic.py'
"""What is trained before CONFIG, which loads it."""
RANGE_M = 25.0
MIN_TRUTH = 20
OCCLUSION_PRESET = 'occlusion_long'
OCCLUSION_SCENES = ('scene-0061', 'scene-0553', 'scene-0655', 'scene-0757', 'scene-0103', 'scene-0916')
"""Four to learn from, and both that are validated on."""


def parse_options(words: list[str]) -> dict[str, Any]:
    """KEY=VALUE words, read as the tools read them."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction)
    return parser.parse_args(['--cfg-options', *words]).cfg_options


class Demo:
    """The steps of `make demo`, each a line on the screen; data that is there already is kept.

    Args:
        repo: the project's folder.
        work_dir: logs, checkpoints, submissions and pictures.
        data_root: the synthetic data set; made if missing.
        preset: of the synthetic data set.
        config_path: which config to train and score; a tiny one, for the synthetic data set.
        cfg_options: KEY=VALUE words handed to tools/train.py and tools/test.py.
        phase1_path: a config that is trained first; `config_path` then begins with its checkpoint, and learns from the scenes
            of `occlusion_root`. None is none.
        occlusion_root: scenes in which much is hidden, to count hidden objects in; made if missing. None is beside `data_root`.
    """

    def __init__(self, repo: Path, work_dir: Path, data_root: Path, preset: str, cfg_options: list[str],
                 config_path: str = CONFIG, phase1_path: str | None = None,
                 occlusion_root: Path | None = None) -> None:
        self.repo, self.work_dir, self.data_root, self.preset = repo, work_dir, data_root, preset
        self.config_path, self.phase1_path = config_path, phase1_path
        self.occlusion_root = data_root.with_name(f'{data_root.name}_occlusion') if occlusion_root is None else occlusion_root
        root = f'{data_root}/'
        self.options = [f'{split}_dataloader.dataset.data_root={root}' for split in ('train', 'val', 'test')]
        self.options += [f'{split}_evaluator.{key}' for split in ('val', 'test')
                         for key in (f'data_root={root}', f'ann_file={root}nuscenes_infos_val.pkl')]
        self.options += cfg_options
        self.start = time.monotonic()

    def run(self) -> str:
        """Everything; returns the closing line."""
        self.say('synthetic nuScenes')
        self.tool('create_synthetic_nuscenes.py', '--preset', self.preset, '--out', self.data_root)
        if not (self.data_root / 'nuscenes_dbinfos_train.pkl').is_file():
            self.say('preparing it (infos, GT database)')
            self.tool('create_data.py', 'nuscenes', '--root-path', self.data_root, '--version', 'v1.0-mini')
        trained = self.train_phases()
        self.say('scoring it, and an untrained one')
        scores = {'untrained': self.score('untrained', self.save_untrained()), 'trained': self.score('trained', trained)}
        for name, score in scores.items():
            print(f'{name}: mAP {score["mAP"]:.3f} within {RANGE_M:.0f} m over {len(score["classes"])} classes; ' + ', '.join(
                f'{c} {score["per_class"][c]:.3f} ({score["num_truth"][c]})' for c in score['classes']))
        pictures = self.work_dir / 'pictures'
        scene, hidden = self.draw(trained, pictures)
        final = scores['trained']
        line = (f'demo: mAP={final["mAP"]:.3f} NDS={final["NDS"]:.3f} untrained_mAP={scores["untrained"]["mAP"]:.3f} '
                f'classes={len(final["classes"])} range_m={RANGE_M:.0f} pictures={pictures}')
        config = self.repo / self.config_path
        page = report_demo(self.work_dir, self.repo, [*hidden, line], scores, scene, config, parse_options(self.options))
        self.say(f'report: {page}')
        return line

    def train_phases(self) -> Path:
        """Trains what is to be trained; the last checkpoint."""
        if self.phase1_path is None:
            return self.train(self.config_path, self.work_dir)
        first = self.train(self.phase1_path, self.work_dir / 'phase1')
        self.make_occlusion()
        return self.train(self.config_path, self.work_dir, f'load_from={first}',
                          f'train_dataloader.dataset.data_root={self.occlusion_root}/')

    def train(self, config_path: str, work_dir: Path, *options: str) -> Path:
        """Trains a config; its last checkpoint."""
        self.say(f'training {config_path}: minutes on 2 cores')
        self.tool('train.py', config_path, '--work-dir', work_dir, '--cfg-options', *self.options, *options)
        return Path((work_dir / 'last_checkpoint').read_text().strip())

    def draw(self, checkpoint: Path, pictures: Path) -> tuple[PlayedScene, list[str]]:
        """The first validation scene, also for the report's player; where there is a memory, what is hidden and found with it
        and without, in a line."""
        self.say('pictures')
        cfg = self.config()
        model, dataset = load_detector(cfg, str(checkpoint)), DATASETS.build(cfg.test_dataloader.dataset)
        name, positions = find_scene(dataset, None)
        frames, range_m = list(stream_memory(model, dataset, positions)), model.grid.point_cloud_range
        draw_scene(frames, range_m, dataset.metainfo['classes'], pictures, self.data_root)
        lines = []
        if model.temporal is not None and model.test_mode.mode == 'streaming':
            self.make_occlusion()
            self.say('hidden objects, with memory and without')
            hidden = DATASETS.build({**cfg.test_dataloader.dataset, 'data_root': f'{self.occlusion_root}/'})
            lines.append(find_hidden(model, hidden, RANGE_M, pictures / 'hidden.png'))
            print(*lines)
        return played(name, frames[:MOST_FRAMES], dataset, range_m), lines

    def make_occlusion(self) -> None:
        """Scenes in which much is hidden behind tall vehicles; what is there is kept."""
        if not (self.occlusion_root / 'nuscenes_infos_val.pkl').is_file():
            self.say('scenes in which much is hidden')
            self.tool('create_synthetic_nuscenes.py', '--preset', OCCLUSION_PRESET, '--scenes', *OCCLUSION_SCENES,
                      '--out', self.occlusion_root)
            self.tool('create_data.py', 'nuscenes', '--root-path', self.occlusion_root, '--version', 'v1.0-mini',
                      '--skip-gt-database')

    def say(self, text: str) -> None:
        """One line with the time since the start."""
        print(f'[demo {time.monotonic() - self.start:4.0f}s] {text}', flush=True)

    def tool(self, name: str, *arguments: Any) -> None:
        """Runs one of the project's tools; raises UserError where it fails (it has said why)."""
        env = {'PYTHONWARNINGS': 'ignore', **os.environ}
        command = [sys.executable, f'tools/{name}', *map(str, arguments)]
        if subprocess.run(command, cwd=self.repo, env=env).returncode:
            raise UserError(f'the step above failed: {" ".join(command)}')

    def config(self) -> Config:
        """The config, reading this data set."""
        cfg = Config.fromfile(self.repo / self.config_path)
        cfg.merge_from_dict(parse_options(self.options))
        return cfg

    def save_untrained(self) -> Path:
        """A checkpoint of the same detector as it starts."""
        init_registry()
        torch.manual_seed(0)
        model = MODELS.build(self.config().model)
        model.init_weights()
        path = self.work_dir / 'untrained.pth'
        torch.save({'state_dict': model.state_dict()}, path)
        return path

    def score(self, name: str, checkpoint: Path) -> dict[str, Any]:
        """Official scoring by tools/test.py, and the near-range mean AP of the same submission."""
        out = self.work_dir / f'score_{name}'
        self.tool('test.py', self.config_path, checkpoint, '--work-dir', out, '--cfg-options', *self.options,
                  f'test_evaluator.jsonfile_prefix={out}')
        submission = next(out.rglob('results_nusc.json'))
        nusc = NuScenes('v1.0-mini', str(self.data_root), verbose=False)
        near = demo_map(nusc, str(submission), 'mini_val', range_m=RANGE_M, min_truth=MIN_TRUTH)
        official = json.loads((submission.parent / 'metrics_summary.json').read_text())
        return {**near, 'NDS': official['nd_score']}
