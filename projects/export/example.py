"""Export, numpy and onnxruntime alone. In: a folder of tools/export.py --save-frames. Out: boxes of every frame, printed.

    python -m projects.export.example work_dirs/exported
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from projects.export.streaming import ExportedDetector


def main(argv: list[str] | None = None) -> None:
    """Runs the frames that lie in the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='with export.json, graphs and frames')
    parser.add_argument('--out', type=Path, help='write the boxes into this JSON file')
    args = parser.parse_args(argv)
    files = sorted((args.folder / 'frames').glob('*.npz'))
    if not files:
        parser.error(f'{args.folder}/frames holds no frames: export with --save-frames')
    detector, results = ExportedDetector(args.folder), []
    names = detector.description['classes']
    for path in files:
        with np.load(path) as frame:
            if frame['is_scene_start']:
                detector.reset()
            found = detector(frame)
        best = [f'{names[label]} {score:.2f} at ({box[0]:.1f}, {box[1]:.1f})'
                for box, score, label in zip(found['boxes'][:3], found['scores'], found['labels'])]
        print(f'{path.stem}: {len(found["boxes"])} boxes; {", ".join(best)}')
        results.append({name: array.tolist() for name, array in found.items()})
    if args.out:
        args.out.write_text(json.dumps(results))


if __name__ == '__main__':
    main()
