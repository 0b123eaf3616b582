"""Mail: what is sent and enqueued arrives, and what goes wrong is said. The server is the one of all suites."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, script

import coord
from coord.mail import Address, Attachment, MailState, Message, RecipientStatus

SERVER = Path(__file__).parents[2] / "tests/servers/smtp.py"


class MailServer:
    """The mail server, which answers requests in JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = self._line()["port"]

    def _line(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def ask(self, **request: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._line()

    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.ask(messages=True)["messages"]
        return messages

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}?tls=none&sender=shop@example.org&retry_min=10ms&retry_max=20ms"


@pytest.fixture
def server() -> Iterator[MailServer]:
    pytest.importorskip("aiosmtpd")
    command = [sys.executable, str(SERVER)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield MailServer(process)
        finally:
            process.kill()


def test_a_message_arrives(server: MailServer) -> None:
    message = Message(
        to=[Address("ann@example.org", "Ann Lee"), "Bob <bob@example.org>"],
        bcc="eve@example.org",
        subject="Grüße, 世界",
        text="Hello.",
        html="<p>Hello.</p>",
        attachments=[Attachment(name="a.txt", content=b"x"), Attachment(path=__file__)],
        headers={"X-Own": "1"},
        date=datetime(2024, 1, 2, tzinfo=timezone.utc),
    )
    with coord.mailer(server.url) as mailer:
        mailer.health()
        report = mailer.send(message)
    assert report.all_accepted
    assert [one.address for one in report.recipients] == ["ann@example.org", "bob@example.org", "eve@example.org"]
    assert report.recipients[0].status == RecipientStatus.ACCEPTED
    (got,) = server.messages()
    assert got["subject"] == "Grüße, 世界"
    assert got["to"] == [["Ann Lee", "ann@example.org"], ["Bob", "bob@example.org"]]
    assert [one["name"] for one in got["files"]] == ["a.txt", "test_mail.py"]
    assert got["message_id"] == report.message_id
    with pytest.raises(coord.Closed):
        mailer.send(message)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (Message(), "to:"),
        (Message(to="nobody"), "to[0]:"),
        (Message(to="a@example.org", subject="x\r\nBcc: e@example.org"), "subject:"),
        (Message(to="a@example.org", headers=[("X", "a\nb")]), "headers[0]:"),
        (Message(to="a@example.org", attachments=[Attachment(path="/nowhere")]), "attachments[0].path:"),
        (Message(to="a@example.org", attachments=[Attachment(content=b"x")]), "attachments[0].name:"),
        (Message(to="a@example.org", subject="\ud800"), "subject:"),
        (
            Message(
                to="a@example.org", attachments=[Attachment(path=b"/nowhere/\xff".decode("utf-8", "surrogateescape"))]
            ),
            "attachments:",
        ),
    ],
)
def test_mistakes_name_their_field(server: MailServer, message: Message, field: str) -> None:
    with coord.mailer(server.url) as mailer, pytest.raises(coord.InvalidArgument) as caught:
        mailer.send(message)
    assert str(caught.value).startswith(field)
    assert server.messages() == []


def test_bad_arguments() -> None:
    with pytest.raises(TypeError):
        coord.mailer("smtp://h", timeout=None)  # type: ignore[arg-type]
    with pytest.raises(coord.InvalidArgument):
        coord.mailer("smtp://h", colour="red")
    with pytest.raises(coord.InvalidArgument) as caught:
        coord.mailer("smtp://u:s3cret@")
    assert "s3cret" not in str(caught.value)
    mailer = coord.mailer("smtp://u:s3cret@h")
    assert "s3cret" not in repr(mailer)
    mailer = coord.mailer(host="h", port=26, user="u", password="s3cret", sender=Address("a@example.org", "Läden"))
    assert repr(mailer) == "<coord.mail.Mailer smtp://h:26>"
    with pytest.raises(TypeError):
        mailer.send("hello")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        mailer.send(Message(to=7))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Attachment"):
        mailer.send(Message(to="a@example.org", attachments=["a.txt"]))  # type: ignore[list-item]
    with pytest.raises(TypeError, match="date"):
        mailer.send(Message(to="a@example.org", date="today"))  # type: ignore[arg-type]


def test_an_unknown_outcome_and_a_refusal(server: MailServer) -> None:
    with coord.mailer(server.url) as mailer:
        server.ask(rule={"at": "dot", "do": "taken drop", "times": 1})
        with pytest.raises(coord.OutcomeUnknown):
            mailer.send(Message(to="a@example.org"))
        server.ask(rule={"at": "rcpt", "do": "550 5.1.1 no", "for": "bob@"})
        report = mailer.send(Message(to=["ann@example.org", "bob@example.org"]))
        assert not report.all_accepted
        assert (report.recipients[1].code, report.recipients[1].permanent) == (550, True)


def test_a_batch_tells_of_each(server: MailServer) -> None:
    messages = [Message(to=f"r{number}@example.org") for number in range(12)]
    messages[5] = Message()
    with coord.mailer(server.url) as mailer:
        sent = list(mailer.send_many(messages))
    assert sorted(one.index for one in sent) == list(range(12))
    errors = [one for one in sent if one.error is not None]
    assert [one.index for one in errors] == [5]
    assert isinstance(errors[0].error, coord.InvalidArgument)
    assert len(server.messages()) == 11


def test_an_outbox_sends_what_was_enqueued(server: MailServer, client: coord.Client) -> None:
    with client.mailer(server.url) as mailer:
        outbox = client.outbox("letters", mailer, poll="50ms")
        events = outbox.watch()
        assert next(events).event == "gap"
        first = outbox.enqueue(Message(to="ann@example.org"), key="k")
        again = outbox.enqueue(Message(to="bob@example.org"), key="k")
        assert (first.new, again.new, again.id) == (True, False, first.id)
        later = datetime.now(timezone.utc) + timedelta(hours=1)
        waiting = outbox.enqueue(Message(to="bob@example.org"), not_before=later, expires=later + timedelta(1))
        for refused in (datetime(2030, 1, 1), "2030-01-01"):
            with pytest.raises((coord.InvalidArgument, TypeError), match="not_before"):
                outbox.enqueue(Message(to="a@example.org"), not_before=refused)  # type: ignore[arg-type]
            with pytest.raises((coord.InvalidArgument, TypeError), match="expires"):
                outbox.enqueue(Message(to="a@example.org"), expires=refused)  # type: ignore[arg-type]
        with pytest.raises(coord.InvalidArgument, match="limit"):
            outbox.list(limit=-1)
        with outbox.start(2):
            for event in events:
                if event.mail is not None and event.mail.state == MailState.SENT:
                    break
        mail = outbox.get(first.id)
        assert mail is not None
        assert (mail.state, mail.attempts, mail.key) == (MailState.SENT, 1, "k")
        assert mail.recipients[0].status == RecipientStatus.ACCEPTED
        assert [one.id for one in outbox.list("queued")] == [waiting.id]
        outbox.cancel(waiting.id)
        with pytest.raises(coord.Conflict):
            outbox.retry(waiting.id)
        with pytest.raises(coord.NotFound):
            outbox.cancel("none")
        assert outbox.get("none") is None
        assert outbox.stats()[MailState.CANCELLED] == 1
        assert outbox.purge(0) == 2
    with pytest.raises(coord.Closed, match="mailer"):
        outbox.start()
    assert [one["rcpt"] for one in server.messages()] == [["ann@example.org"]]


async def test_the_same_with_await(server: MailServer, url: str) -> None:
    async with await coord.aio.connect(url) as client, coord.aio.mailer(server.url) as mailer:
        await mailer.health()
        assert (await mailer.send(Message(to="a@example.org"))).all_accepted
        assert [one.index async for one in mailer.send_many([Message(to="b@example.org")])] == [0]
        outbox = client.outbox("letters", mailer, poll="50ms")
        enqueued = await outbox.enqueue(Message(to="c@example.org"), key="k")
        async with outbox.start():
            async for event in outbox.watch():
                mail = await outbox.get(enqueued.id)
                assert mail is not None
                if mail.state == MailState.SENT or (event.mail and event.mail.state == MailState.SENT):
                    break
        assert [one.key for one in await outbox.list()] == ["k"]
        assert (await outbox.stats())[MailState.SENT] == 1
        with pytest.raises(coord.Conflict):
            await outbox.retry(enqueued.id)
        with pytest.raises(coord.Conflict):
            await outbox.cancel(enqueued.id)
        assert await outbox.purge(0) == 1
    assert len(server.messages()) == 3


def test_a_watch_of_an_outbox_outlives_a_wait_that_is_given_up(client: coord.Client) -> None:
    with coord.mailer(host="localhost") as mailer:
        outbox = client.outbox("letters", mailer)
        with outbox.watch() as watch:
            assert watch.next(timeout=PATIENCE).event == "gap"
            with pytest.raises(coord.Timeout):
                watch.next(timeout=0.01)
            enqueued = outbox.enqueue(Message(to="a@example.org", sender="b@example.org"))
            event = watch.next(timeout=PATIENCE)
            assert event.mail is not None
            assert (event.event, event.mail.id) == ("mail", enqueued.id)
        assert watch.closed
        assert list(watch) == []
        later = outbox.watch()
        client.close()
        assert list(later) == []


async def test_a_cancelled_wait_for_an_outbox_loses_nothing(url: str) -> None:
    async with await coord.aio.connect(url) as client, coord.aio.mailer(host="localhost") as mailer:
        outbox = client.outbox("letters", mailer)
        async with outbox.watch() as watch:
            assert (await anext(watch)).event == "gap"
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(watch), 0.01)
            enqueued = await outbox.enqueue(Message(to="a@example.org", sender="b@example.org"))
            event = await watch.next(timeout=PATIENCE)
            assert event.mail is not None
            assert (event.event, event.mail.id) == ("mail", enqueued.id)
        assert [event async for event in watch] == []


@pytest.mark.parametrize("senders", [-1, 0, 33, 2**32, 2**64])
def test_a_number_of_senders_is_refused(client: coord.Client, senders: int) -> None:
    with coord.mailer(host="localhost") as mailer, pytest.raises(coord.InvalidArgument, match="senders"):
        client.outbox("letters", mailer).start(senders)


def test_a_date_that_no_calendar_has_hides_no_mail(client: coord.Client) -> None:
    with coord.mailer(host="localhost") as mailer:
        outbox = client.outbox("letters", mailer)
        text = Message(to="a@example.org", sender="b@example.org").to_json()
        outbox._native.enqueue(text, "late", 300_000_000_000_000, None).wait()
        outbox.enqueue(Message(to="a@example.org", sender="b@example.org"), key="now")
        assert {mail.key: mail.due.year for mail in outbox.list()}["late"] == 1970
        assert len(outbox.list()) == 2


def test_what_a_message_is_given_may_be_read_once() -> None:
    message = Message(to=(name for name in ["a@example.org"]), headers=(pair for pair in [("X-A", "1")]))  # type: ignore[arg-type]
    assert message.to_json() == message.to_json()
    assert json.loads(message.to_json())["headers"] == [["X-A", "1"]]
    assert message.to == ["a@example.org"]


def test_a_mailer_from_before_a_fork_spoils_the_child() -> None:
    text = """
    mailer = coord.mailer(host="localhost")
    child = os.fork()
    if child == 0:
        try:
            coord.connect("memory:")
        except coord.Forked:
            os._exit(7)
        os._exit(1)
    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    with script(text, options=("-W", "ignore::DeprecationWarning")) as process:
        assert process.end().split() == ["7"]
