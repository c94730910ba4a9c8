"""What a decision would cost a chip, from counts of instructions: the clock of the virtual board.

The constants are instructions of an ESP32 (Xtensa LX6, GCC 14.2 -O2, esp-tflite-micro 1.4.0 with plain C kernels),
counted in emulation: about 10 a multiply-accumulate of FULLY_CONNECTED, 516 an element of TANH, 1,000 an ``Invoke``.
What a FULLY_CONNECTED spends on an output besides its products (bias, requantization, clamp) was not counted by itself;
70 makes the totals fit. The other constants are estimates from reading the code; they weigh little.

Three totals were counted, and the model meets them within 1 %:

=====================================  =======  =======
                                       counted  modelled
=====================================  =======  =======
encoder 6-32-32, one ``Invoke``         17,700   17,640
head 40-64-64-1 with two TANH          143,700  143,278
decision with 8 peers of these         285,000  287,644
=====================================  =======  =======

Codes of 16 bits were not counted on an ESP32. Their loops (FULLY_CONNECTED adds up in int64, TANH and LOGISTIC
interpolate in a table) were compared with int8's in GCC 12.2's -O2 code for RV32IMC, the ESP32-C3's instructions: 14 a
multiply-accumulate where int8 takes 9, and 30 an element of TANH. The LX6 takes 10 where RV32IMC takes 9, so that is 16
and 33.

A tick is a cycle of 240 MHz, one an instruction. Caches, flash and stalls are not modelled, so a chip is slower. These
times compare models with one another and exercise the code that reads times; they are ``simulated``, and no latency
criterion takes them for a proof.
"""

from __future__ import annotations

from quant.runners.flatbuffer import FullyConnected, Layer, Model
from quant.tracks.candidate import Bits
from quant.wire.protocol import Stage

CPU_MHZ = 240
TICKS_PER_SECOND = CPU_MHZ * 1_000_000

INVOKE = 1_000
"""The interpreter's own instructions in one ``Invoke``."""
MAC: dict[Bits, int] = {8: 10, 16: 16}
FULLY_CONNECTED_OUTPUT = 70
ELEMENT: dict[str, int] = {
    "TANH": 516,
    "LOGISTIC": 516,  # the same fixed-point routines as TANH
    "ELU": 12,  # a table of 256
    "RELU": 45,  # requantizes
    "RELU6": 8,  # compares
    "QUANTIZE": 45,  # requantizes
    "RESHAPE": 1,  # copies
}
"""Instructions an element of int8, by operator."""
ELEMENT_16: dict[str, int] = {"TANH": 33, "LOGISTIC": 33}
"""The same of int16."""

STAGE_COSTS = {Stage.QUANTIZE: 30, Stage.POOL: 6, Stage.OUTPUT: 30}
"""Instructions an element that the firmware itself handles: a code made of a feature, a code of an embedding pooled, an
output dequantized. The stages that run a sub-model cost :func:`invoke_instructions`."""


def invoke_instructions(model: Model) -> int:
    """Instructions of one ``Invoke`` of a sub-model."""
    return INVOKE + sum(map(_layer_instructions, model.layers))


def decision_instructions(encoder: Model, head: Model, peers: int) -> int:
    """Instructions of a whole decision with ``peers`` peers present, as the virtual board's clock counts them."""
    features = peers * encoder.input.size + head.input.size - encoder.output.size
    return (
        STAGE_COSTS[Stage.QUANTIZE] * features
        + peers * invoke_instructions(encoder)
        + STAGE_COSTS[Stage.POOL] * peers * encoder.output.size
        + invoke_instructions(head)
        + STAGE_COSTS[Stage.OUTPUT] * head.output.size
    )


def stage_costs() -> list[int]:
    """Ticks an element for each stage, in the order of :class:`~quant.wire.protocol.Stage`."""
    return [STAGE_COSTS.get(stage, 0) for stage in Stage]


def _layer_instructions(layer: Layer) -> int:
    if isinstance(layer, FullyConnected):
        return MAC[layer.input.bits] * layer.weight.size + FULLY_CONNECTED_OUTPUT * layer.output.size
    costs = ELEMENT if layer.input.bits == 8 else ELEMENT_16
    return costs[layer.operator] * layer.output.size
