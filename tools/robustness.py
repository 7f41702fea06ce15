"""Tests a fused detector with wrong calibration, missing sensors and false images; says whether the cameras are used.

Writes robustness.json, robustness.md, robustness.png and report.html. Conditions that robustness.json holds already are
skipped, so the command may be stopped and given again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.common.threads import wait_passively

wait_passively()

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from projects.common.safe_pickle import add_trust_option
from projects.memfusion.runtime import OptionsAction, build_runner, naming_options, prepare_config, run_cli, set_work_dir
from projects.studies.robustness.conditions import GROUPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a detector with cameras')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('--out', type=Path, required=True, help='folder of the results')
    parser.add_argument('--lidar-only', nargs=2, metavar=('CONFIG', 'CHECKPOINT'),
                        help='the detector without cameras that it is compared with; default: itself with all cameras masked')
    parser.add_argument('--only', nargs='+', choices=GROUPS, default=GROUPS,
                        help='faults beside the false images; default: all. grid is every rotation with every translation, 20 '
                             'tests more')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='change the config(s)')
    add_trust_option(parser)
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read checkpoints without protection: they may run any program')
    args = parser.parse_args()

    from projects.studies.robustness.report import draw, summary_of, write_markdown
    from projects.studies.robustness.run import ResultFile, config_id, file_id, rig_of, run_conditions, test_once

    def runner_of(cfg: Config, checkpoint: str) -> Runner:
        set_work_dir(cfg, args.config, str(args.out / 'logs'))
        cfg.load_from, cfg.resume = checkpoint, False
        with naming_options(cfg, args.cfg_options):
            runner = build_runner(cfg, args.trust_checkpoint, 'test')
        runner.load_or_resume()  # now, so that a wrong checkpoint is told before hours of tests
        return runner

    pairs = [(args.config, args.checkpoint)] + ([tuple(args.lidar_only)] if args.lidar_only else [])
    configs = [prepare_config(config, args.cfg_options) for config, _ in pairs]
    cfg = configs[0]
    rig_of(cfg)
    names = dict(config=Path(args.config).name, settings=' '.join(map(config_id, configs)),
                 weights=' '.join(file_id(Path(checkpoint)) for _, checkpoint in pairs),
                 options=' '.join(f'{key}={value}' for key, value in sorted((args.cfg_options or {}).items())))
    results = ResultFile(args.out / 'robustness.json', names)
    runner = runner_of(cfg, args.checkpoint)
    if args.lidar_only and results.content['lidar_only'] is None:
        other = configs[1]
        results.content['lidar_only'] = test_once(runner_of(other, args.lidar_only[1]), other, other.test_dataloader)
        results.save()
    conditions = run_conditions(runner, cfg, results, args.only)
    lidar_only, title = results.content['lidar_only'], Path(args.config).stem
    results.content['summary'] = summary_of(conditions, results.scores, lidar_only)
    results.save()
    write_markdown(args.out / 'robustness.md', title, conditions, results.scores, lidar_only)
    draw(args.out / 'robustness.png', title, conditions, results.scores, lidar_only)
    for line in results.content['summary']['lines']:
        print(f'robustness: {line}')
    if is_main_process():
        from projects.demos.played_scene import play_or_say
        from projects.reports import report_study
        played = play_or_say(prepare_config(args.config, args.cfg_options), Path(args.checkpoint), args.trust_checkpoint)
        report_study(args.out / 'report.html', f'Robustness of {title}', (args.out / 'robustness.md').read_text(),
                     config=str(Path(args.config).resolve()), options=args.cfg_options, scene=played,
                     pictures={'curves': args.out / 'robustness.png'})
    print(f'robustness: tables and curves in {args.out}')


if __name__ == '__main__':
    run_cli(main)
