"""Make a procedural data set in the nuScenes v1.0-mini format: `--preset tiny --out DIR --seed N --workers N`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.synthetic_nuscenes.cli import main

if __name__ == '__main__':
    sys.exit(main())
