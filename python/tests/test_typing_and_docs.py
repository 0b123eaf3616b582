"""The examples in the documentation run, the package is typed, and the stub is that of the native module."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def annotated() -> Iterator[tuple[str, Any]]:
    """Everything of the package that has annotations and that a program can name."""
    for module in (coord, coord.aio, coord.mail, coord.aio.mail, coord.testing, coord.aio.testing):
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing):
                yield f"{module.__name__}.{name}", thing
            if not inspect.isclass(thing):
                continue
            for member in dir(thing):
                of_class = inspect.getattr_static(thing, member)
                found = of_class.fget if isinstance(of_class, property) else getattr(of_class, "__func__", of_class)
                if inspect.isfunction(found) and (not member.startswith("_") or member.endswith("__")):
                    yield f"{module.__name__}.{name}.{member}", found


def test_annotations_can_be_evaluated() -> None:
    failures = {}
    checked = 0
    for name, thing in annotated():
        # What the standard library has put into our classes is its own.
        if not getattr(thing, "__module__", "").startswith("coord"):
            continue
        checked += 1
        try:
            typing.get_type_hints(thing)
        except Exception as error:
            failures[name] = repr(error)
    assert failures == {}
    assert checked > 500


@pytest.mark.parametrize("name", ["Timeout", "Contended", "mail.Outbox.__init__", "testing.Control.__init__"])
def test_annotations_can_be_evaluated_by_whoever_has_imported_nothing_else(name: str) -> None:
    program = f"import typing, coord; assert typing.get_type_hints(coord.{name})"
    subprocess.run([sys.executable, "-c", program], check=True)


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
