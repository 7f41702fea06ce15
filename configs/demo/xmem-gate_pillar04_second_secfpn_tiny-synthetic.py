# The demo: a small XMem-gated PointPillars on the tiny synthetic world, minutes on a CPU.
_base_ = [
    '../_base_/models/xmem_gate_pillar_centerhead_tiny.py', '../_base_/datasets/synthetic_sequence.py',
    '../_base_/schedules/one_cycle_cpu.py', '../_base_/default_runtime.py'
]
custom_hooks = _base_.custom_hooks + [dict(type='ChannelsLastHook')]
