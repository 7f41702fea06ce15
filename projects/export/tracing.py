"""Export. In: a graph and the tensors of a frame. Out: its files, NAME.pt2 (torch.export) and NAME.onnx, and a description."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import onnxscript
import torch
from onnxscript import opset20
from torch import Tensor

from projects.memfusion.runtime.errors import UserError

from .graphs import Graph, Tensors

OPSET = 20
SIZE_NAME = 'V'
"""Name of the only size that may change from frame to frame: how many voxels there are."""


@torch.no_grad()
def trace(graph: Graph, values: Tensors, dynamic: Collection[str], folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Writes the graph into the folder.

    Args:
        graph: whose `takes` is set.
        values: a frame's tensors by name, those that it takes among them.
        dynamic: names of tensors whose first size is the number of voxels.

    Returns:
        What export.json says of the graph, and what it makes of the tensors.

    Raises:
        UserError: naming the graph, where torch cannot export it or ONNX has no form for it.
    """
    inputs = {name: values[name] for name in graph.takes}
    outputs = graph.run(inputs)
    dim = torch.export.Dim(SIZE_NAME, min=1)
    shapes = tuple({0: dim} if name in dynamic else {} for name in inputs)
    try:
        with _quiet():
            program = torch.export.export(graph, tuple(inputs.values()), dynamic_shapes=dict(tensors=shapes), strict=False)
            torch.export.save(program, folder / f'{graph.name}.pt2')
            made = torch.onnx.export(program, input_names=list(inputs), output_names=list(outputs), dynamo=True,
                                     opset_version=OPSET, verbose=False,
                                     custom_translation_table={torch.ops.aten.where.self: _where})
            assert made is not None
            made.save(folder / f'{graph.name}.onnx')
    except (RuntimeError, torch.onnx.OnnxExporterError, NotImplementedError) as error:
        raise UserError(f'the graph {graph.name!r} of this detector cannot be exported: {_first_line(error)}') from error
    described = dict(name=graph.name, program=f'{graph.name}.pt2', onnx=f'{graph.name}.onnx',
                     inputs=[_described(name, tensor, dynamic) for name, tensor in inputs.items()],
                     outputs=[_described(name, tensor, ()) for name, tensor in outputs.items()])
    return described, outputs


def _where(condition: Any, chosen: Any, other: Any) -> Any:
    """As torch.where; onnxruntime has none for truth values."""
    if chosen.dtype != onnxscript.ir.DataType.BOOL:
        return opset20.Where(condition, chosen, other)
    kept = opset20.And(opset20.Not(condition), other)
    return opset20.Or(opset20.And(condition, chosen), kept)


def _described(name: str, tensor: Tensor, dynamic: Collection[str]) -> dict[str, Any]:
    shape: list[Any] = list(tensor.shape)
    return dict(name=name, dtype=numpy_name(tensor), shape=[SIZE_NAME, *shape[1:]] if name in dynamic else shape)


def numpy_name(tensor: Tensor) -> str:
    """numpy's name of the tensor's dtype."""
    return str(tensor.dtype).removeprefix('torch.')


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ or error
    return next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of packages that are not there and of its own progress."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
