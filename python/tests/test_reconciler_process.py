"""Reconcilers at the end of their process, and in a forked child."""

from __future__ import annotations

import pytest
from support import script


def test_functions_end_before_the_process_does(shared_url: str) -> None:
    text = """
        client = coord.connect(URL)
        def f(work):
            say("begun")
            work.cancelled.wait()
            client.lock("a").acquire().release()
            say("ended")
        r = client.reconcile("r", coord.Source.manual(), f)
        r.add("k")
        hear()
    """
    with script(text, shared_url) as process:
        assert process.hear() == "begun"
        process.say()
        assert process.end() == "ended\n"


def test_functions_that_go_on_do_not_keep_the_process(shared_url: str) -> None:
    text = """
        client = coord.connect(URL, close_timeout=0.2)
        def f(work):
            say("begun")
            threading.Event().wait()
        r = client.reconcile("r", coord.Source.manual(), f)
        r.add("k")
        hear()
    """
    with script(text, shared_url) as process:
        assert process.hear() == "begun"
        process.say()
        assert process.end() == ""


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_no_reconciler(shared_url: str) -> None:
    text = """
        client = coord.connect(URL)
        works = []
        r = client.reconcile("r", coord.Source.manual(), works.append)
        r.add("k")
        r.wait_until_reconciled("k", 0, 30)
        child = os.fork()
        if child == 0:
            for call in (r.stats, lambda: r.add("k"), r.parked, r.pause, lambda: works[0].key, works[0].check):
                try:
                    call()
                except coord.Forked:
                    continue
                say("not refused", call)
            assert works[0].cancelled and "forked" in repr(r), repr(r)
            del r, works
            gc.collect()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        r.add("again")
        r.wait_until_reconciled("again", 0, 30)
        say("done")
    """
    with script(text, shared_url, options=("-W", "ignore::DeprecationWarning")) as process:
        assert process.end() == "done\n"
