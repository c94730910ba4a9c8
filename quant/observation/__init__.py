"""What a set policy sees: batches of observations, and the contract of what each of their columns is and may be."""

from quant.observation.contract import Column, Contract
from quant.observation.observations import EGO, PEER_MASK, PEERS, Observations

__all__ = ["EGO", "PEERS", "PEER_MASK", "Column", "Contract", "Observations"]
