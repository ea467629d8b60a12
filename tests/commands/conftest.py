"""Fixtures that start `lobbyctl up`."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.commands.running import CHEAP, UP, Running

Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `lobbyctl up` with options, each time in the test's own folder."""
    started: list[Running] = []

    def begin(*options: str) -> Running:
        started.append(Running(tmp_path, *options))
        return started[-1]

    yield begin
    for running in started:
        running.clean_up()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A system of two nodes and two login workers that is up, shared by the tests of a module."""
    options = ("--no-demo", "--port", "0", "--nodes", "2", "--workers", "login=2")
    running = Running(tmp_path_factory.mktemp("system"), *options)
    try:
        running.wait_for(UP)
        yield running
    finally:
        running.clean_up()


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A system with quick heartbeats for operators, shared: each test drains what no other one needs."""
    quick = ("--set", "status.heartbeat_s=0.5", "--set", "monitoring.every_s=0.3")
    options = ("--no-demo", *CHEAP, *quick, "--nodes", "3", "--workers", "login=2", "--workers", "ranking=2")
    running = Running(tmp_path_factory.mktemp("desk"), *options)
    try:
        running.wait_for(UP)
        yield running
    finally:
        running.clean_up()
