"""Float Deep Sets policies: the architecture, how it computes, import and saving.

TensorFlow is imported only when a SavedModel or a Keras file is read or written.
"""

from __future__ import annotations

from pathlib import Path

from quant.observation.observations import EGO, PEER_MASK, PEERS, Observations
from quant.policy.loading import load_policy
from quant.policy.policy import ActionSpace, Activation, Box, Dense, Discrete, Fact, Forward, Policy, Pooling
from quant.policy.storage import policy_digest, save_policy

__all__ = [
    "EGO",
    "PEERS",
    "PEER_MASK",
    "ActionSpace",
    "Activation",
    "Box",
    "Dense",
    "Discrete",
    "Fact",
    "Forward",
    "Observations",
    "Policy",
    "Pooling",
    "export_saved_model",
    "load_policy",
    "policy_digest",
    "save_policy",
]


def export_saved_model(policy: Policy, folder: Path) -> None:
    """Exports a policy as a TF SavedModel; see `quant.policy.export.export_saved_model`."""
    from quant.policy.export import export_saved_model as export

    export(policy, folder)
