"""Longer variants of these tests, by options."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--power-losses", type=int, default=2, help="losses of power per test")
    parser.addoption("--outage-seconds", type=float, default=0, help="how long a journal is away")
