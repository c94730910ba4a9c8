"""What all importers share: the caller's say, facts, and the checks an imported policy has to pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from quant.errors import InputError
from quant.observation.observations import F32, Observations
from quant.policy.policy import ActionSpace, Activation, Dense, Fact, Policy, Pooling

POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
MAX_PARAMETERS = 4 << 20
"""Weights and biases of an imported policy: forty times what fits into two 100 KB models."""
DEFAULT_MAX_PEERS = 8


@dataclass(frozen=True)
class Given:
    """What the caller says about a policy, for what its file does not say. None: not given.

    Attributes:
        pooling: over the peers present.
        encoder_activation: after the encoder's layers, where the file leaves it open.
        action_space: what the head's outputs mean.
        max_peers: P, peer slots of an observation.
    """

    pooling: Pooling | None = None
    encoder_activation: Activation | None = None
    action_space: ActionSpace | None = None
    max_peers: int | None = None


def settle(
    name: str, given: object, known: object, how: Literal["stated", "read"], source: str, *, where: str
) -> Fact | None:
    """Holds what the caller gives against what the file says (None: nothing) and returns how the value is known.

    The file's word comes first; None where neither says anything.

    Raises:
        InputError: they contradict each other.
    """
    if known is None:
        return None if given is None else Fact(name, str(given), "given", "the caller")
    if given is not None and given != known:
        raise InputError(
            f"{name} is given as {given}, but the file says {known}",
            where=where,
            expected=f"{known} ({how}: {source})",
            hint=f"leave {name} out, or check that this is the right file",
        )
    return Fact(name, str(known), how, source)


def assemble(policy: Policy, where: str) -> Policy:
    """Checks that the layers of a policy fit together, ends its head linear, and returns it.

    Raises:
        InputError: widths do not fit, weights are not finite, or it is far too large.
    """
    for part, layers in (("encoder", policy.encoder), ("head", policy.head)):
        _check_layers(part, layers, where)
    parameters = sum(layer.weight.size + layer.bias.size for layer in (*policy.encoder, *policy.head))
    if parameters > MAX_PARAMETERS:
        raise InputError(f"has {parameters} parameters", where=where, expected=f"at most {MAX_PARAMETERS}")
    if policy.ego_size < 1:
        raise InputError(
            f"the head takes {policy.head[0].inputs} inputs, the pooled embedding alone has {policy.embedding_size}",
            where=where,
            expected="the head's input is [z, ego]",
        )
    if policy.head[-1].outputs != policy.action_space.width:
        raise InputError(
            f"the head gives {policy.head[-1].outputs} values, the action space has {policy.action_space.width}",
            where=where,
            expected="one value for each action or component",
        )
    if not 0 < policy.max_peers <= 4096:
        raise InputError(f"max_peers is {policy.max_peers}", where=where, expected="1 to 4096 peer slots")
    return dataclasses.replace(policy, head=end_linear(policy.head))


def end_linear(head: tuple[Dense, ...]) -> tuple[Dense, ...]:
    """A head that ends in an activation gets an identity layer after it, so that the last layer is linear."""
    if head[-1].activation == "linear":
        return head
    width = head[-1].outputs
    return (*head, Dense(np.eye(width, dtype=np.float32), np.zeros(width, np.float32), "linear"))


def _check_layers(part: str, layers: Sequence[Dense], where: str) -> None:
    if not layers:
        raise InputError(f"the {part} has no layers", where=where, expected="at least one dense layer")
    width = layers[0].inputs
    for index, layer in enumerate(layers):
        at = f"{where}: {part} layer {index}"
        if layer.inputs != width or layer.bias.shape != (layer.outputs,):
            raise InputError(
                f"takes {layer.inputs} inputs and has {layer.bias.size} biases for {layer.outputs} outputs, "
                f"but is given {width} inputs",
                where=at,
                expected="widths that fit together",
            )
        if not (np.isfinite(layer.weight).all() and np.isfinite(layer.bias).all()):
            raise InputError(
                "holds weights that are NaN or infinite",
                where=at,
                expected="finite weights",
                hint="the training diverged or the file is damaged; take an earlier checkpoint",
            )
        width = layer.outputs


def probe(ego: int, max_peers: int, peer: int, seed: int = 0) -> Observations:
    """Random observations with 0 to P peers in random slots, and zeros in the slots without a peer.

    Features are normal with a standard deviation between .3 and 3, so that activations meet both their ends.
    """
    generator = np.random.default_rng(seed)
    counts = np.tile(np.arange(max_peers + 1), 8)
    mask = generator.permuted(np.arange(max_peers) < counts[:, None], axis=1)
    scale = generator.choice([0.3, 1.0, 3.0], size=(len(counts), 1))
    egos: F32 = (generator.normal(size=(len(counts), ego)) * scale).astype(np.float32)
    peers: F32 = (generator.normal(size=(len(counts), max_peers, peer)) * scale[:, :, None]).astype(np.float32)
    return Observations(egos, np.where(mask[:, :, None], peers, np.float32(0)), mask)
