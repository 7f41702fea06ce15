# The demo's detector and memory with mmdet3d's Anchor3DHead.
_base_ = [
    '../_base_/models/xmem_gate_anchor3d_tiny.py', '../_base_/datasets/synthetic_sequence.py',
    '../_base_/schedules/one_cycle_cpu.py', '../_base_/default_runtime.py'
]
custom_hooks = _base_.custom_hooks + [dict(type='ChannelsLastHook')]
