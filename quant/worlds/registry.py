"""The worlds of our own, by the names that ``--world`` takes.

Importing this costs nothing: whoever only names worlds, as a help text does, loads none.
"""

from __future__ import annotations

CONVOY = "convoy"
"""The specification of our own convoys."""
WORLDS = {CONVOY: "quant.worlds.world:convoy_world"}
"""By name, ``module:function`` from keyword arguments to the world; it raises InputError for one it does not take."""
EXPECTED = f"{', '.join(WORLDS)}, or module:EnvId"
"""What a specification may be."""
