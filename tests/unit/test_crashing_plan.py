"""The plan of a crash test: the same from the same seed."""

from itertools import islice
from random import Random

from scripts.crashing.faults import MONGODB, Fault, Plan
from scripts.crashing.trigger import Trigger
from scripts.crashing.workload import EVERYTHING, Asking


def faults(seed: int) -> list[Fault]:
    return list(islice(Plan(MONGODB, Random(seed), 0.3), 1000))  # noqa: S311 - no secret


def requests(seed: int) -> list[dict[str, object]]:
    asking = Asking("c", EVERYTHING, Random(seed))  # noqa: S311 - no secret
    return [asking.next().frame for _ in range(200)]


def test_a_seed_repeats_the_faults() -> None:
    assert faults(7) == faults(7)
    assert faults(7) != faults(8)


def test_a_seed_repeats_the_requests() -> None:
    assert requests(7) == requests(7)
    assert requests(7) != requests(8)


def test_every_kind_of_fault_comes() -> None:
    assert {fault.kind for fault in faults(7)} == set(MONGODB)
    assert {fault.trigger is not None for fault in faults(7) if fault.kind == "trigger"} == {True}


def test_a_trigger_reaches_the_server_as_it_was_drawn() -> None:
    for fault in faults(7):
        if fault.trigger is not None:
            there = Trigger.of(fault.trigger.text())
            assert there[:3] == fault.trigger[:3]
            assert abs(there.seconds - fault.trigger.seconds) < 1e-6
