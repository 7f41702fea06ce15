"""Make furnished rooms, videos with depth and poses, and questions: `--preset nano|tiny|small --out DIR --seed N`."""

import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.spatial_mllm.rooms.cli import main

if __name__ == '__main__':
    try:
        code = main()
    except Exception:  # Python's own exit code, 1, means here that the folder cannot be used
        traceback.print_exc()
        code = 3
    sys.exit(code)
