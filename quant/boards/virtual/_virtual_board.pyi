from quant.boards.virtual.firmware import EnginePort, Identity

class Core:
    """One life of the firmware's ``policy_core``: from boot to restart, panic or hang.

    Args:
        pack: content of the models partition from its start; empty where nothing was flashed.
        partition_bytes: size of the partition; what the pack leaves of it is erased flash.
        engine: runs the sub-models.
        identity: who the board says it is.
        ticks_per_second: of the clock.
        costs: ticks an element for each stage.

    Raises:
        ValueError: the pack is larger than the partition, or a hash or MAC in ``identity`` is not of its size.
    """

    def __init__(
        self,
        pack: bytes,
        partition_bytes: int,
        engine: EnginePort,
        identity: Identity,
        ticks_per_second: int,
        costs: list[int],
    ) -> None: ...
    def feed(self, data: bytes) -> bytes:
        """Bytes from the host -> bytes to the host. What ``engine`` raises is raised here."""

    @property
    def event(self) -> str:
        """How this life ended: "restart", "panic" or "hang"; "" while it goes on. Then ``feed`` gives nothing."""

    @property
    def pack_status(self) -> int:
        """A :class:`~quant.wire.protocol.PackStatus`."""

    @property
    def slots(self) -> int:
        """Tracks that are loaded."""
