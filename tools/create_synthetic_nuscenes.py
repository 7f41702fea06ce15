"""Make a procedural data set in the nuScenes v1.0-mini format: `--preset tiny --out DIR --seed N --workers N`."""

import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.synthetic_nuscenes.cli import main

if __name__ == '__main__':
    try:
        code = main()
    except Exception:  # Python's own exit code, 1, means here that the folder cannot be used
        traceback.print_exc()
        code = 3
    sys.exit(code)
