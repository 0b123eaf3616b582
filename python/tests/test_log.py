"""The library's log arrives in Python's `logging`."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from support import eventually

import coord


def test_records_come_with_level_and_logger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "coord")
    with coord.connect("memory:", name="logged") as client:
        session = client.session.id

        def opened() -> list[logging.LogRecord]:
            return [
                record for record in caplog.records if "session opened" in record.message and session in record.message
            ]

        eventually(opened, "the opening was logged")
        assert opened()[0].levelno == logging.DEBUG
        assert opened()[0].name == "coord.session"
        held = client.lock("a").acquire()
        client.break_lock("a", held.token, force=True)
        assert held.lost.wait(30)
        eventually(lambda: any(r.levelno == logging.WARNING for r in caplog.records), "the loss was logged")


def test_a_filter_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG, "coord")
    logger = logging.getLogger("coord.session")
    failed = []

    def fail(record: logging.LogRecord) -> bool:
        failed.append(record)
        raise KeyError("a mistake of the user's")

    logger.addFilter(fail)
    try:
        coord.connect("memory:").close()
        eventually(lambda: failed, "the filter was asked")
    finally:
        logger.removeFilter(fail)
    caplog.clear()
    coord.connect("memory:").close()
    eventually(lambda: caplog.records, "the log goes on")
    assert "a mistake of the user's" in capsys.readouterr().err


def test_listeners_failures_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    from coord import _client

    def f(_: object) -> None:
        raise ValueError("mine")

    _client._listen([1, 2], f)  # type: ignore[arg-type]
    assert [record.exc_info is not None for record in caplog.records if record.name == "coord"] == [True, True]


def test_what_is_logged_last_at_exit_arrives() -> None:
    program = """
import coord, logging
logging.basicConfig(format="%(message)s", level=logging.DEBUG)
client = coord.connect("memory:")
held = client.lock("a").acquire()
"""
    for _ in range(10):
        ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        states = [line for line in ran.stderr.splitlines() if line.startswith("session state")]
        assert "state=Lost(Closed)" in states[-1]


def test_a_mailer_without_a_client_is_logged() -> None:
    program = """
import coord, logging
from coord.mail import Message
logging.basicConfig(format="%(name)s: %(message)s", level=logging.DEBUG)
mailer = coord.mailer("smtp://127.0.0.1:1?tls=none", retries=1)
try:
    mailer.send(Message(sender="a@example.com", to=["b@example.com"], subject="s", text="t"))
except coord.CoordError:
    pass
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "a message is tried again" in ran.stderr
