"""What `import coord` brings with it, and what only comes when it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import coord

# Each takes longer to import than most of this package, or is a part of it that few programs use.
LATER = {
    "asyncio",
    "base64",
    "bson",
    "coord._bson",
    "coord._client",
    "coord._document",
    "coord._election",
    "coord._reconciler",
    "coord._table",
    "coord._types",
    "coord.aio",
    "coord.bson",
    "coord.mail",
    "coord.testing",
    "dataclasses",
    "datetime",
    "html",
    "json",
    "logging",
    "platform",
    "typing",
    "uuid",
}


def run(program: str) -> list[str]:
    """The lines that a fresh interpreter prints."""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_what_few_programs_use_is_imported_later() -> None:
    # What a site has loaded at the start, for other packages, is not coord's doing.
    program = "import sys; before = set(sys.modules); import coord; print(*sys.modules.keys() - before)"
    [line] = run(program)
    imported = set(line.split())
    assert {"coord", "coord._errors", "coord._native"} <= imported
    assert not imported & LATER


@pytest.mark.parametrize("module", sorted(set(coord._WHERE.values())))
def test_the_names_of_each_module_are_there_for_those_who_ask_for_them(module: str) -> None:
    # Each in an interpreter of its own: modules that need one another must do so in whatever order they come.
    names = [name for name, where in coord._WHERE.items() if where == module]
    program = "; ".join(f"coord.{name}, coord.{name}.__module__" for name in names)
    assert run(f"import coord; {program}; from coord import {', '.join(names)}; print({names[0]} is not None)") == [
        "True"
    ]
    assert set(names) <= set(coord.__all__)


@pytest.mark.parametrize("use", ["coord.connect", "coord.mailer", "coord.aio.connect", "coord.aio.mailer"])
def test_whoever_can_wait_is_ready_for_forks_and_the_end(use: str) -> None:
    assert run(f"import sys, coord\n{use}\nprint('coord._lifetime' in sys.modules)") == ["True"]


def test_every_name_is_there() -> None:
    names = [name for name in coord.__all__ if name != "__version__"]
    assert run("from coord import *; print(" + ", ".join(f"{name} is not None" for name in names) + ")") == [
        " ".join(["True"] * len(names))
    ]


@pytest.mark.parametrize(
    "use",
    [
        "coord.mail.Message",
        "coord.Mailer",
        "coord.Outbox",
        "coord.mailer",
        "from coord import mailer",
        "from coord import mail",
        "import coord.mail; coord.mail.Message",
        "from coord import *; Mailer; Outbox; mailer(host='localhost')",
        "coord.mailer(host='localhost')",
        "with coord.connect('memory:') as client: client.mailer(host='localhost')",
        "with coord.connect('memory:') as client: client.outbox('a', coord.mailer(host='localhost'))",
    ],
)
def test_mail_is_there_for_those_who_use_it(use: str) -> None:
    loaded = "print('coord.mail' in sys.modules)"
    assert run(f"import sys, coord\n{loaded}\n{use}\n{loaded}") == ["False", "True"]


def test_what_comes_later_is_listed() -> None:
    program = "import sys, coord; print(*set(coord.__all__) - set(dir(coord))); print('mail' in dir(coord))"
    assert run(f"{program}; print('coord.mail' in sys.modules)") == ["", "True", "False"]
