"""Elections, on every store."""

from __future__ import annotations

import gc
import logging
import threading
from collections.abc import Callable

import pytest
from support import PATIENCE, eventually

import coord


def candidates(client: coord.Client) -> int:
    """How many wait to lead."""
    return len(client.election("boss").candidates())


def nobody_leads(client: coord.Client) -> bool:
    """Whether there is neither a leader nor a candidate."""
    return client.election("boss").leader() is None and candidates(client) == 0


class Background:
    """A function on a thread, and what comes of it."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.results: list[object] = []
        self._work = work
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.results.append(self._work())
        except Exception as error:
            self.results.append(error)

    def result(self) -> object:
        self._thread.join(PATIENCE)
        [result] = self.results
        return result


def test_a_term_is_won_and_resigned(client: coord.Client, other: coord.Client) -> None:
    election = client.election("boss")
    assert election.leader() is None
    assert not election.is_leader()
    with election.campaign("here", timeout=PATIENCE) as term:
        assert term.name == election.name
        assert (term.value, term.resigned) == ("here", False)
        assert 0 < term.remaining <= client.session.ttl
        term.check()
        term.ensure(client.session.ttl / 2)
        assert election.is_leader()
        assert not other.election("boss").is_leader()
        leader = other.election("boss").leader()
        assert leader is not None
        assert (leader.name, leader.value, leader.token) == ("one", "here", term.token)
        assert (leader.session, leader.is_self) == (client.session.id, False)
        own = election.leader()
        assert own is not None
        assert own.is_self
        term.proclaim("there")
        assert term.value == "there"
        moved = other.election("boss").leader()
        assert moved is not None
        assert moved.value == "there"
    assert term.resigned
    assert term.lost.reason is coord.LossReason.RESIGNED
    assert term.remaining == 0
    assert not election.is_leader()
    for call in (term.check, term.resign, lambda: term.proclaim("late"), lambda: term.ensure(1)):
        with pytest.raises(coord.NotHeld):
            call()
    with other.election("boss").campaign(timeout=PATIENCE) as later:
        assert later.token > term.token


def test_who_comes_too_late_is_told(client: coord.Client, other: coord.Client) -> None:
    with client.election("boss").campaign() as term:
        assert other.election("boss").try_campaign("me") is None
        with pytest.raises(coord.Contended) as caught:
            other.election("boss").campaign(timeout=0)
        assert caught.value.holder is not None
        assert (caught.value.holder.name, caught.value.holder.token) == ("one", term.token)
        with pytest.raises(TimeoutError):
            other.election("boss").campaign(timeout=0.05)
        eventually(lambda: candidates(client) == 0, "it waits no more")
    won = other.election("boss").try_campaign("me")
    assert won is not None
    assert won.value == "me"
    won.resign()


def test_the_highest_priority_wins(client: coord.Client, other: coord.Client) -> None:
    term = client.election("boss").campaign()
    low = Background(lambda: other.election("boss").campaign("low", priority=-3, timeout=PATIENCE))
    eventually(lambda: candidates(client) == 1, "the first waits")
    high = Background(lambda: other.election("boss").campaign("high", priority=7, timeout=PATIENCE))
    eventually(lambda: candidates(client) == 2, "both wait")
    waiting = client.election("boss").candidates()
    assert [(one.priority, one.name, one.is_self) for one in waiting] == [(7, "two", False), (-3, "two", False)]
    assert waiting._repr_html_().count("<tr>") == 3
    term.resign()
    second = high.result()
    assert isinstance(second, coord.Term)
    assert not low.results
    second.resign()
    third = low.result()
    assert isinstance(third, coord.Term)
    assert term.token < second.token < third.token
    third.resign()


def test_a_term_is_handed_to_a_chosen_candidate(url: str, client: coord.Client, other: coord.Client) -> None:
    with coord.connect(url, name="three") as chosen:
        term = client.election("boss").campaign()
        first = Background(lambda: other.election("boss").campaign(priority=9, timeout=PATIENCE))
        second = Background(lambda: chosen.election("boss").campaign(timeout=PATIENCE))
        eventually(lambda: candidates(client) == 2, "both wait")
        with pytest.raises(coord.InvalidArgument):
            term.transfer_to("nobody")
        with pytest.raises(coord.NotFound):
            term.transfer_to("0" * 32)
        term.check()
        [candidate] = [one for one in client.election("boss").candidates() if one.name == "three"]
        term.transfer_to(candidate)
        assert term.resigned
        won = second.result()
        assert isinstance(won, coord.Term)
        assert not first.results
        won.resign()
        last = first.result()
        assert isinstance(last, coord.Term)
        last.resign()


def test_an_observer_hears_of_everything_in_order(client: coord.Client, other: coord.Client) -> None:
    with other.election("boss").observe() as watch:
        assert watch.next(PATIENCE) is None
        first = client.election("boss").campaign("a")
        story = [watch.next(PATIENCE)]
        while story[-1] is None or story[-1].value is None:
            story.append(watch.next(PATIENCE))
        assert story[-1] is not None
        assert (story[-1].name, story[-1].value, story[-1].token) == ("one", "a", first.token)
        first.proclaim("b")
        changed = watch.next(PATIENCE)
        assert changed is not None
        assert (changed.value, changed.token) == ("b", first.token)
        first.resign()
        assert watch.next(PATIENCE) is None
        with pytest.raises(coord.Timeout):
            watch.next(timeout=0.01)
        second = client.election("boss").campaign("c")
        leader = watch.next(PATIENCE)
        assert leader is not None
        assert leader.token == second.token > first.token
        second.resign()
        assert "boss" in repr(watch)
    assert watch.closed
    assert list(watch) == []
    with pytest.raises(coord.Closed):
        watch.next()


def test_a_watch_ends_with_its_client(client: coord.Client, other: coord.Client) -> None:
    watch = other.election("boss").observe()
    seen: list[coord.Leader | None] = []
    reading = Background(lambda: seen.extend(watch))
    eventually(lambda: seen == [None], "the present state")
    other.close()
    assert reading.result() is None
    assert seen[:1] == [None]


def test_a_closed_watch_ends_waits_in_other_threads(client: coord.Client) -> None:
    watch = client.election("boss").observe()
    assert watch.next(PATIENCE) is None
    waiting = Background(watch.next)
    watch.close()
    assert isinstance(waiting.result(), coord.Closed)


def test_a_function_is_called_at_each_win(client: coord.Client, other: coord.Client) -> None:
    election, terms = client.election("boss"), []

    @election.when_elected(value="v")
    def lead(term: coord.Term) -> None:
        terms.append(term)
        assert not term.lost.is_set()
        assert election.is_leader()
        term.lost.wait()

    eventually(lambda: len(terms) == 1, "it is called")
    assert isinstance(lead, coord.Candidacy)
    assert "lead" in repr(lead)
    assert lead.running
    leader = other.election("boss").leader()
    assert leader is not None
    assert (leader.value, leader.token) == ("v", terms[0].token)
    terms[0].resign()
    eventually(lambda: len(terms) == 2, "it is called again")
    assert terms[0].token < terms[1].token
    lead.close(PATIENCE)
    lead.close()
    assert lead.closed
    assert terms[1].lost.reason is coord.LossReason.RESIGNED
    assert nobody_leads(other)


def test_an_exception_resigns_and_is_logged(
    client: coord.Client, other: coord.Client, caplog: pytest.LogCaptureFixture
) -> None:
    tokens: list[int] = []

    def lead(term: coord.Term) -> None:
        tokens.append(term.token)
        if len(tokens) < 3:
            raise KeyError("mine")
        term.lost.wait()

    with client.election("boss").when_elected(lead, backoff=(0, 0.01)):
        eventually(lambda: len(tokens) == 3, "it is called again after each failure")
    assert tokens == sorted(set(tokens))
    failures = [record for record in caplog.records if record.exc_info and record.levelno == logging.ERROR]
    assert len(failures) == 2
    assert failures[0].exc_info is not None
    assert isinstance(failures[0].exc_info[1], KeyError)
    assert nobody_leads(other)


def test_a_log_that_fails_ends_no_candidacy(client: coord.Client, broken_log: None) -> None:
    tokens: list[int] = []

    def lead(term: coord.Term) -> None:
        tokens.append(term.token)
        if len(tokens) == 1:
            raise KeyError("mine")
        term.lost.wait()

    with client.election("boss").when_elected(lead, backoff=(0, 0.01)) as candidacy:
        eventually(lambda: len(tokens) == 2, "it is called again")
        assert candidacy.running


def test_an_exception_can_keep_the_term(client: coord.Client, other: coord.Client) -> None:
    called: list[coord.Term] = []

    def lead(term: coord.Term) -> None:
        called.append(term)
        raise KeyError("mine")

    candidacy = client.election("boss").when_elected(lead, keep_on_error=True)
    eventually(lambda: called and not candidacy.running, "it has failed")
    leader = other.election("boss").leader()
    assert leader is not None
    assert leader.token == called[0].token
    candidacy.close()
    assert len(called) == 1
    assert nobody_leads(other)


def test_several_functions_share_a_term(client: coord.Client, other: coord.Client) -> None:
    tokens: dict[str, list[int]] = {"first": [], "second": []}
    election = client.election("boss")

    def record(name: str) -> Callable[[coord.Term], None]:
        def lead(term: coord.Term) -> None:
            tokens[name].append(term.token)
            term.lost.wait()

        return lead

    first = election.when_elected(record("first"))
    eventually(lambda: tokens["first"], "the first is called")
    second = election.when_elected(record("second"))
    eventually(lambda: tokens["second"], "one that comes later is called at once")
    assert tokens["first"] == tokens["second"]
    first.close()
    assert election.is_leader()
    second.close()
    assert nobody_leads(other)


def test_a_function_may_close_its_own_candidacy(client: coord.Client, other: coord.Client) -> None:
    closed = threading.Event()

    def lead(term: coord.Term) -> None:
        candidacy.close()
        assert term.lost.wait(PATIENCE)
        closed.set()

    term = other.election("boss").campaign()
    candidacy = client.election("boss").when_elected(lead)
    term.resign()
    assert closed.wait(PATIENCE)
    candidacy.close(PATIENCE)
    eventually(lambda: candidacy.closed, "it is closed")
    assert nobody_leads(other)


def test_closing_waits_for_the_function(client: coord.Client) -> None:
    entered, leave = threading.Event(), threading.Event()

    def lead(term: coord.Term) -> None:
        entered.set()
        leave.wait(PATIENCE)

    candidacy = client.election("boss").when_elected(lead)
    assert entered.wait(PATIENCE)
    with pytest.raises(coord.Timeout):
        candidacy.close(timeout=0.05)
    assert not client.election("boss").is_leader()
    leave.set()
    candidacy.close(PATIENCE)


def test_closing_the_client_ends_functions(client: coord.Client, other: coord.Client) -> None:
    reasons: list[coord.LossReason | None] = []

    def lead(term: coord.Term) -> None:
        entered.set()
        term.lost.wait()
        reasons.append(term.lost.reason)

    entered = threading.Event()
    candidacy = client.election("boss").when_elected(lead)
    assert entered.wait(PATIENCE)
    client.close(PATIENCE)
    eventually(lambda: candidacy.closed, "it is closed")
    assert reasons == [coord.LossReason.CLOSED]
    assert nobody_leads(other)
    with pytest.raises(coord.Closed):
        client.election("boss").when_elected(lead)


def test_run_returns_what_the_function_returns(client: coord.Client, other: coord.Client) -> None:
    calls: list[int] = []

    def lead(term: coord.Term) -> str:
        calls.append(term.token)
        if len(calls) == 1:
            raise KeyError("mine")
        assert other.election("boss").try_campaign() is None
        return "done"

    assert client.election("boss").run(lead, backoff=(0, 0)) == "done"
    assert len(calls) == 2
    assert nobody_leads(other)

    def interrupted(term: coord.Term) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.election("boss").run(interrupted)
    eventually(lambda: nobody_leads(other), "nothing is left")

    term = other.election("boss").campaign()
    running = Background(lambda: client.election("boss").run(lead))
    eventually(lambda: candidates(other) == 1, "it waits")
    client.close()
    assert isinstance(running.result(), coord.Closed)
    term.resign()


def test_the_end_of_a_block_masks_nothing(client: coord.Client) -> None:
    with pytest.raises(KeyError), client.election("boss").campaign():
        raise KeyError("mine")
    with client.election("boss").campaign() as term:
        term.resign()
    assert term.resigned


def test_a_forgotten_term_warns_and_is_resigned(client: coord.Client, other: coord.Client) -> None:
    term = client.election("boss").campaign()
    lost = term.lost
    with pytest.warns(ResourceWarning, match="default/boss.* was never resigned"):
        del term
        gc.collect()
    eventually(lambda: nobody_leads(other), "it is resigned")
    assert lost.wait(PATIENCE)
    assert lost.reason is coord.LossReason.RESIGNED


def test_reprs_say_what_it_is(client: coord.Client) -> None:
    election = client.election("boss")
    assert "boss" in repr(election)
    with election.campaign() as term:
        assert f"token={term.token}" in repr(term)
        assert "remaining=" in repr(term)
        leader = election.leader()
        assert str(leader).startswith("one on ")
    assert "resigned" in repr(term)
