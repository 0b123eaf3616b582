"""The stores that tests run on."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import coord

MONGODB = os.environ.get("COORD_TEST_MONGODB_URI")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with a `url` runs on every store, one with a `shared_url` on every store of several processes."""
    many = ["sqlite", "mongodb"] if MONGODB else ["sqlite"]
    if "url" in metafunc.fixturenames:
        metafunc.parametrize("url", ["memory", *many], indirect=True)
    if "shared_url" in metafunc.fixturenames:
        metafunc.parametrize("shared_url", many, indirect=True)


def _url(store: str, folder: Path) -> str:
    unique = uuid.uuid4().hex
    if store == "memory":
        return f"memory:{unique}"
    if store == "sqlite":
        return f"sqlite:///{folder}/t.db"
    assert MONGODB is not None
    # A namespace of its own in the database that all tests share.
    return f"{MONGODB}{'&' if '?' in MONGODB else '?'}coord.namespace=t{unique}"


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    return _url(request.param, tmp_path)


@pytest.fixture
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store that several processes can use."""
    return _url(request.param, tmp_path)


@pytest.fixture
def broken_log() -> Iterator[None]:
    """A log whose filter fails."""

    def fail(record: logging.LogRecord) -> bool:
        raise ZeroDivisionError

    logger = logging.getLogger("coord")
    logger.addFilter(fail)
    yield
    logger.removeFilter(fail)


@pytest.fixture
def client(url: str) -> Iterator[coord.Client]:
    """A client of an empty store."""
    with coord.connect(url, name="one") as client:
        yield client


@pytest.fixture
def other(url: str) -> Iterator[coord.Client]:
    """Another client of the same store."""
    with coord.connect(url, name="two") as client:
        yield client
