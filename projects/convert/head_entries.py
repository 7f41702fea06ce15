"""Converter. In: a design, names of a checkpoint. Out: which entries of its official head the checkpoint lacks.

Entries are written with braces: `a.{0,2}.{weight,bias}` are four, and `{L}` stands for every layer of the decoder. Those of one
group come together or not at all; a head has the first group and some of the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product

HEAD = 'pts_bbox_head.'
_NUMBER = re.compile(r'transformer\.decoder\.layers\.(\d+)\.')
_BOTH = '{weight,bias}'
_LAYER = 'transformer.decoder.layers.{L}.'
_DECODER = (
    _LAYER + 'attentions.{0,1}.attn.{in_proj_weight,in_proj_bias,out_proj.weight,out_proj.bias}',
    _LAYER + 'ffns.0.layers.{0.0,1}.' + _BOTH,
    _LAYER + 'norms.{0,1,2}.' + _BOTH,
    'transformer.decoder.post_norm.' + _BOTH,
    'reference_points.weight',
)
_CLASSES = 'cls_branches.{L}.{0,1,3,4,6}.' + _BOTH
_BOXES = 'reg_branches.{L}.{0,2,4}.' + _BOTH
_SPARSE = 'transformer.decoder.decoder_layer.'
Groups = tuple[tuple[str, ...], ...]
GROUPS: dict[str, Groups] = {
    'petrv2': (
        (*_DECODER, _CLASSES, 'input_proj.' + _BOTH, '{adapt_pos3d,position_encoder,query_embedding}.{0,2}.' + _BOTH),
        ('fpe.conv_{reduce,expand}.' + _BOTH,),
        (_BOXES,),
        ('reg_branches.{L}.reg_branch.{0,3}.' + _BOTH, 'reg_branches.{L}.task_heads.{0,1,2,3,4}.{0,2}.' + _BOTH),
    ),
    'streampetr': (
        (*_DECODER, _CLASSES, _BOXES, '{position_encoder,memory_embed,query_embedding}.{0,2}.' + _BOTH,
         'featurized_pe.conv_{reduce,expand}.' + _BOTH, 'pseudo_reference_points.weight', 'time_embedding.{0,1}.' + _BOTH,
         '{spatial_alignment,ego_pose_pe,ego_pose_memory}.{reduce.0,gamma,beta}.' + _BOTH),
    ),
    'sparsebev': (
        (_SPARSE + 'position_encoder.{0,1,3,4}.' + _BOTH, _SPARSE + '{norm1,norm2,norm3}.' + _BOTH,
         _SPARSE + 'self_attn.attention.attn.{in_proj_weight,in_proj_bias,out_proj.weight,out_proj.bias}',
         _SPARSE + '{self_attn.gen_tau,sampling.sampling_offset,sampling.scale_weights}.' + _BOTH,
         _SPARSE + 'mixing.{parameter_generator,out_proj}.' + _BOTH, _SPARSE + 'ffn.layers.{0.0,1}.' + _BOTH,
         _SPARSE + 'cls_branch.{0,1,3,4,6}.' + _BOTH, _SPARSE + 'reg_branch.{0,2,4}.' + _BOTH),
        ('{init_query_bbox,label_enc}.weight',),
    ),
    'cmt': (
        (*_DECODER, '{bev_embedding,rv_embedding}.{0,2}.' + _BOTH,
         'task_heads.0.{center,height,dim,rot,vel,cls_logits}.{0.weight,1.weight,1.bias,3.weight,3.bias}'),
        ('shared_conv.{conv.weight,bn.weight,bn.bias,bn.running_mean,bn.running_var}',),
    ),
}


def missing_entries(design: str, names: Iterable[str]) -> list[str]:
    """Official entries of the head, `pts_bbox_head` in front, that must come with others that are there."""
    given = {name.removeprefix(HEAD) for name in names if name.startswith(HEAD)}
    numbers = (_NUMBER.match(name) for name in given)
    layers = 1 + max((int(number[1]) for number in numbers if number), default=0)
    missing = []
    for group in GROUPS[design]:
        entries = [entry for pattern in group for entry in expanded(pattern, layers)]
        if not given.isdisjoint(entries):
            missing += [HEAD + entry for entry in entries if entry not in given]
    return missing


def expanded(pattern: str, layers: int) -> list[str]:
    """All names of a pattern, for a decoder of so many layers."""
    parts = re.split(r'\{(.+?)\}', pattern)
    choices = [map(str, range(layers)) if part == 'L' else part.split(',') if number % 2 else [part]
               for number, part in enumerate(parts)]
    return [''.join(choice) for choice in product(*choices)]
