"""The exceptions: one for each code of the core, each caught as what it is."""

from __future__ import annotations

import copy
import pickle

import pytest

import coord
from coord import _errors, _native

ONLY_IN_C = {101: "Handle", 102: "AbiMismatch"}

BASES = {
    "InvalidArgument": ValueError,
    "Reentrant": RuntimeError,
    "Forked": RuntimeError,
    "Closed": RuntimeError,
    "Unsupported": NotImplementedError,
    "Timeout": TimeoutError,
    "NotFound": LookupError,
    "NotHeld": RuntimeError,
    "Unavailable": ConnectionError,
    "OutcomeUnknown": ConnectionError,
    "Unauthorized": PermissionError,
    "Forbidden": PermissionError,
}


def test_every_code_has_its_class() -> None:
    codes = {number: (name, retryable) for number, name, retryable in _native.codes()}
    ours = {number: (cls.name, cls.retryable) for number, cls in _errors._ByCode.classes.items()}
    assert ours == {number: facts for number, facts in codes.items() if number not in ONLY_IN_C}
    assert {number: codes[number][0] for number in ONLY_IN_C} == ONLY_IN_C
    for cls in _errors._ByCode.classes.values():
        assert getattr(coord, cls.__name__) is cls
        assert cls is coord.CoordError or cls.__name__ == cls.name
        assert issubclass(cls, BASES.get(cls.name, coord.CoordError))


@pytest.mark.parametrize("number", [number for number, _, _ in _native.codes()])
def test_exceptions_survive_pickling(number: int) -> None:
    error = _errors._from_core(number, "why", None, 3 if number in (301, 104) else None, "the cause")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert (str(again), again.code, again.name, again.retryable) == ("why", number, error.name, error.retryable)
        assert getattr(again, "reason", None) == getattr(error, "reason", None)
    if hasattr(error, "add_note"):
        assert error.__notes__ == ["cause: the cause"]


def test_the_holder_survives_pickling() -> None:
    with coord.connect("memory:", name="me") as client, client.lock("a").acquire() as held:
        with pytest.raises(coord.Contended) as caught:
            client.lock("a").acquire(timeout=0)
        again = pickle.loads(pickle.dumps(caught.value))
        assert again.holder == caught.value.holder
        assert again.holder.token == held.token
        assert again.holder.since.year >= 2024
        assert str(again.holder).startswith("me on ")


def test_unknown_numbers_become_the_base() -> None:
    error = _errors._from_core(777, "new", None, None, None)
    assert type(error) is coord.CoordError
    assert error.code == 777


def test_no_date_breaks_a_listing() -> None:
    from coord._types import _holder

    for milliseconds in (-(2**63), 2**63 - 1):
        assert _holder("", "0" * 32, "", 0, 1, milliseconds, 0, 0.0, False).since.year == 1970
