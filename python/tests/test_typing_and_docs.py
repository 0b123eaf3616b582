"""The examples in the documentation run, the package is typed, and the stub is that of the native module."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import coord

PACKAGE = Path(coord.__file__).parent
MODULES = sorted(
    module.name for module in pkgutil.walk_packages([str(PACKAGE)], "coord.") if module.name != "coord._native"
)
TABLES = ["CachedTable", "Cursor", "Table", "TableLog", "TableWatch"]
RECONCILERS = ["Cancellation", "Reconciler", "Work"]
NOUNS = ["Candidacy", "Client", "Election", "Held", "LeaderWatch", "Lock", "Loss", "Observer", "OwnerWatch", "Provider"]


@pytest.mark.parametrize("name", ["coord", *MODULES])
def test_examples_run(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), raise_on_error=False)
    assert results.failed == 0
    if name in (
        "coord",
        "coord.aio",
        "coord.testing",
        "coord._lock",
        "coord._client",
        "coord._election",
        "coord._table",
        "coord._reconciler",
        "coord._work",
    ):
        assert results.attempted > 0


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
    run = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", "/dev/null", str(PACKAGE)]
    check = subprocess.run(run, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr


def test_the_stub_is_that_of_the_native_module() -> None:
    run = [sys.executable, "-m", "mypy.stubtest", "coord._native"]
    check = subprocess.run(run, capture_output=True, text=True, check=False, cwd=PACKAGE.parent)
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.mark.parametrize(
    "name", [*NOUNS, *TABLES, *RECONCILERS, "Mailer", "Outbox", "ProviderEvents", "SessionWatch", "Term", "Watch"]
)
def test_both_apis_have_the_same_names(name: str) -> None:
    def names(cls: type) -> set[str]:
        return {member for member in dir(cls) if not member.startswith("_")}

    assert names(getattr(coord, name)) == names(getattr(coord.aio, name))


def test_all_is_there() -> None:
    for name in coord.__all__:
        assert getattr(coord, name)
    with pytest.raises(AttributeError):
        coord.nothing  # noqa: B018


def test_asyncio_is_imported_only_when_it_is_used() -> None:
    program = "import sys, coord; assert 'asyncio' not in sys.modules; coord.aio; assert 'asyncio' in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
