"""All scenarios by name, in the order in which they run. A new one gets its line here."""

from collections.abc import Callable
from typing import Final

from .capacity import Capacity
from .commit import Commit
from .context import Context, Sizes
from .features import Features
from .load import Point
from .memory import Memory
from .mongodb import Mongodb
from .restart import Restart
from .round_trip import RoundTrip
from .scenario import Scenario
from .storm import Storm
from .streaming import Streaming
from .throughput import Throughput

SCENARIOS: Final[dict[str, Callable[[Context], Scenario]]] = {
    "throughput": Throughput,
    "round_trip": RoundTrip,
    "memory": Memory,
    "capacity": Capacity,
    "storm": Storm,
    "streaming": Streaming,
    "restart": Restart,
    "commit": Commit,
    "mongodb": Mongodb,
    "features": Features,
}
SHORT: Final = ("throughput", "memory", "storm")
"""What the short form runs, as it says most in little time."""
SHORT_SIZES: Final = Sizes(
    seconds=2.0,
    points=(Point(1, 1), Point(50, 16)),
    echo_loops=("uvloop",),
    idle_sessions=(1_000,),
    storm_at_a_time=(50,),
)
