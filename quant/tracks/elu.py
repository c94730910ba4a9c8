"""ELU in int8: TFLite's converter leaves it in float, TFLite-Micro has an int8 kernel for it."""

from __future__ import annotations

from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

ALIGNMENT = 16
"""Bytes to which the converter aligns weights in the file, for kernels that read them in place."""


class AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Starts every vector of bytes at a multiple of `ALIGNMENT`."""

    def StartVector(self, elem_size: int, num_elems: int, alignment: int) -> Any:  # noqa: N802 - the library's name
        """The library's own, with that alignment for bytes."""
        return super().StartVector(elem_size, num_elems, ALIGNMENT if elem_size == 1 else alignment)


def quantize_elu(tflite: bytes) -> bytes:
    """Replaces DEQUANTIZE, ELU, QUANTIZE by one ELU from int8 to int8, and drops what nothing uses any more."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(tflite, 0))
    graph = model.subgraphs[0]
    codes = [code.builtinCode for code in model.operatorCodes]
    operator = schema.BuiltinOperator
    made_by = {int(op.outputs[0]): op for op in graph.operators}
    used_by = {int(op.inputs[0]): op for op in graph.operators}
    dropped = set()
    for op in graph.operators:
        if codes[op.opcodeIndex] != operator.ELU:
            continue
        before, after = made_by[int(op.inputs[0])], used_by[int(op.outputs[0])]
        if (codes[before.opcodeIndex], codes[after.opcodeIndex]) == (operator.DEQUANTIZE, operator.QUANTIZE):
            op.inputs, op.outputs = [int(before.inputs[0])], [int(after.outputs[0])]
            dropped |= {id(before), id(after)}
    graph.operators = [op for op in graph.operators if id(op) not in dropped]
    _drop_unused(model)
    builder = AlignedBuilder(len(tflite))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _drop_unused(model: Any) -> None:
    graph = model.subgraphs[0]
    tensors = sorted({int(i) for op in graph.operators for i in (*op.inputs, *op.outputs) if i >= 0})
    number = {old: new for new, old in enumerate(tensors)} | {-1: -1}
    graph.tensors = [graph.tensors[i] for i in tensors]
    for op in graph.operators:
        op.inputs, op.outputs = ([number[int(i)] for i in ends] for ends in (op.inputs, op.outputs))
    graph.inputs, graph.outputs = ([number[int(i)] for i in ends] for ends in (graph.inputs, graph.outputs))
    for signature in model.signatureDefs or ():
        for end in (*signature.inputs, *signature.outputs):
            end.tensorIndex = number[int(end.tensorIndex)]
    used = sorted({op.opcodeIndex for op in graph.operators})
    model.operatorCodes = [model.operatorCodes[i] for i in used]
    for op in graph.operators:
        op.opcodeIndex = used.index(op.opcodeIndex)
