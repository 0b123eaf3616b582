"""What `import coord` brings with it, and what only comes when it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Each takes longer to import than most of this package, or is a part of it that few programs use.
LATER = {
    "asyncio",
    "base64",
    "bson",
    "coord._bson",
    "coord._document",
    "coord.aio",
    "coord.bson",
    "coord.mail",
    "coord.testing",
    "html",
    "json",
    "platform",
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
    assert {"coord", "coord._client", "coord._native"} <= imported
    assert not imported & LATER


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
