"""Measures data generation, loading, training, inference and memory; prints Markdown, ratios side by side in one run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.common.threads import wait_passively

wait_passively()
os.environ.setdefault('PYTHONWARNINGS', 'ignore')
os.chdir(Path(__file__).resolve().parents[1])

MODEL_PARTS = ['inference', 'fused', 'training', 'windows', 'scene_length', 'clips']
PARTS = ['generation', 'infos', 'loading', 'clip_loading', 'memory_read', 'temporal_steps', 'fusion', 'queries', 'encodings',
         'sampling', 'mllm', *MODEL_PARTS]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--data-root', type=Path, default=Path('data/synthetic_nuscenes'), help='prepared nuScenes-format data')
    parser.add_argument('--only', nargs='*', choices=PARTS, help='default: all, `fused` where there is a checkpoint')
    parser.add_argument('--checkpoint', type=Path, help='trained weights of the gated detector, for `fused`')
    parser.add_argument('--preset', default='tiny', help='preset of the generation measurement')
    parser.add_argument('--repeats', type=int, default=7, help='rounds of every measurement')
    parser.add_argument('--out', type=Path, help='also write the tables into this file')
    args = parser.parse_args()
    if args.only and 'fused' in args.only and args.checkpoint is None:
        parser.error('--only fused needs --checkpoint: how many boxes are decoded depends on the weights')
    return args


def main() -> None:
    args = parse_args()
    import torch
    from mmengine.registry import init_default_scope

    from projects.benchmarks import encodings as benchmark_encodings
    from projects.benchmarks import fused as benchmark_fused
    from projects.benchmarks import fusion as benchmark_fusion
    from projects.benchmarks import infos as benchmark_infos
    from projects.benchmarks import memory as benchmark_memory
    from projects.benchmarks import models as benchmark
    from projects.benchmarks import queries as benchmark_queries
    from projects.benchmarks import sampling as benchmark_sampling
    from projects.benchmarks import temporal_steps as benchmark_steps
    from projects.memfusion import register  # noqa: F401
    from projects.memfusion.runtime.allocator import keep_large_blocks

    init_default_scope('mmdet3d')
    wanted = args.only or [part for part in PARTS if part != 'fused' or args.checkpoint]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f'CPU, {torch.get_num_threads()} threads'
    parts = [f'Measured with `{" ".join(["python", *sys.argv])}` on {device}, torch {torch.__version__}.\n']
    measurements = {
        'generation': ('Data generation and preparation', lambda: benchmark.measure_generation(args.preset)),
        'infos': ('Reading an info file', lambda: benchmark_infos.measure_infos(args.data_root, args.repeats)),
        'loading': ('Loading', lambda: benchmark.measure_loading(args.data_root, 5 * args.repeats)),
        'inference': ('Inference, streaming', lambda: benchmark.measure_models(args.data_root, args.repeats, training=False)),
        'fused': (
            'Inference with --fuse', lambda: benchmark_fused.measure_fused(args.data_root, args.repeats, args.checkpoint)),
        'training': ('Training step', lambda: benchmark.measure_models(args.data_root, args.repeats, training=True)),
        'memory_read': ('Memory read, CK 64, CV 256, 4096 queries', lambda: benchmark_memory.measure_reads(args.repeats)),
        'fusion': ('Camera fusion', lambda: benchmark_fusion.measure_fusion(args.repeats)),
        'queries': ('Query decoders', lambda: benchmark_queries.measure_queries(args.repeats)),
        'sampling': ('Frame sampling', lambda: benchmark_sampling.measure_sampling(args.repeats)),
        'encodings': ('Pose encodings, 900 queries x 6 cameras x 704 tokens, 8 heads of 32',
                      lambda: benchmark_encodings.measure_encodings(args.repeats)),
        'mllm': ('Attention of the video language model, 4096 tokens, 16 heads of 128', lambda: measure_mllm(args.repeats)),
        'clip_loading': ('Loading of clips', lambda: benchmark_memory.measure_clip_loading(args.data_root, 3 * args.repeats)),
        'windows': ('Testing modes', lambda: benchmark_memory.measure_windows(args.data_root, args.repeats)),
        'temporal_steps': ('Temporal step of one frame', lambda: benchmark_steps.measure_temporal_steps(args.repeats)),
        'scene_length': ('Temporal step over scene length', lambda: benchmark_memory.measure_scene_length(args.data_root)),
        'clips': ('Training step on clips', lambda: benchmark_memory.measure_clips(args.data_root, args.repeats)),
    }
    for name in wanted:
        if name in (*MODEL_PARTS, 'encodings'):
            keep_large_blocks()  # as tools/train.py and tools/test.py do; the read stands alone, so it is measured without
        title, measure = measurements[name]
        parts.append(benchmark.to_markdown(title, measure()))
        print(parts[-1], flush=True)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text('\n'.join(parts))


def measure_mllm(repeats: int) -> list:
    from projects.benchmarks.models import interleave, rows_of
    from projects.spatial_mllm.benchmark import LIBRARY, attention_cases
    return rows_of(interleave(attention_cases(), repeats), LIBRARY)


if __name__ == '__main__':
    main()
