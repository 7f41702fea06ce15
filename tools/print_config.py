#!/usr/bin/env python
"""Prints a config with all that it inherits; with --diff what it changes of another one."""

from __future__ import annotations

import argparse
import difflib
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.common.threads import wait_passively

wait_passively()
warnings.filterwarnings('ignore')  # of libraries that we cannot change

from projects.memfusion.runtime import OptionsAction, prepare_config, run_cli


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--diff', metavar='OTHER', help='another config, e.g. the one that this one inherits from')
    parser.add_argument('--save-path', type=Path, metavar='FILE.py', help='also write the whole config into this file')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE', help='change the config')
    args = parser.parse_args(argv)
    if args.save_path and args.save_path.suffix != '.py':
        parser.error(f'--save-path {args.save_path}: must end in .py')
    text = prepare_config(args.config, args.cfg_options).pretty_text
    if args.save_path:
        args.save_path.parent.mkdir(parents=True, exist_ok=True)
        args.save_path.write_text(text)
    if args.diff:
        other = prepare_config(args.diff).pretty_text
        text = '\n'.join(difflib.unified_diff(other.splitlines(), text.splitlines(), args.diff, args.config, n=2, lineterm=''))
    print(text)


if __name__ == '__main__':
    run_cli(main)
