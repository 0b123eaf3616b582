"""Documents as values of dataclasses and of models of pydantic, and how results look."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import typing
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import pytest

import coord
from coord import bson

UTC = dt.timezone.utc


class State(enum.Enum):
    NEW = "new"
    PAID = "paid"


@dataclasses.dataclass
class Line:
    article: str
    count: int = 1


@dataclasses.dataclass(frozen=True)
class Order:
    customer: str
    total: float
    lines: list[Line] = dataclasses.field(default_factory=list)
    state: State = State.NEW
    ordered: dt.datetime | None = None
    tags: tuple[str, ...] = ()
    place: tuple[float, float] = (0.0, 0.0)
    notes: dict[str, Line] = dataclasses.field(default_factory=dict)
    kind: typing.Literal["a", "b"] = "a"
    either: int | str | None = None
    reference: uuid.UUID | None = None
    raw: Any = None
    seen: Sequence[int] = ()
    more: Mapping[str, int] | None = None
    payer: Line | None = None
    count: int = dataclasses.field(init=False, default=0)


ORDER = Order(
    customer="ann",
    total=12.5,
    lines=[Line("a", 2), Line("b")],
    state=State.PAID,
    ordered=dt.datetime(2026, 1, 1, tzinfo=UTC),
    tags=("x", "y"),
    place=(1.0, 2.5),
    notes={"n": Line("c")},
    kind="b",
    either="text",
    reference=uuid.UUID(int=7),
    raw={"any": [1]},
    seen=[1, 2],
    more={"z": 1},
    payer=Line("p"),
)


@pytest.fixture
def memory() -> Iterator[coord.Client]:
    """A client of a store in memory."""
    with coord.connect("memory:") as client:
        yield client


def test_a_dataclass_comes_back(memory: coord.Client) -> None:
    orders = memory.table("orders", Order)
    assert orders.model is Order
    written = orders.insert("o1", ORDER)
    assert written.value == ORDER
    assert orders.get("o1").value == ORDER
    assert orders.find().values == [ORDER]
    assert next(orders.cursor()).value == ORDER
    # Fields that are not there have their defaults, fields that the dataclass has not are left out.
    memory.table("orders").insert("o2", {"customer": "bob", "total": 1, "other": True})
    value = orders.get("o2").value
    assert value == Order("bob", 1.0)
    assert isinstance(value.total, float)
    with orders.watch() as watch:
        values = [delivery.value for _, delivery in zip(range(4), watch, strict=False)]
        assert sorted(value.customer for value in values if value is not None) == ["ann", "bob"]
    with memory.table("orders", Order, cached=True) as copy:
        assert copy.get("o1").value == ORDER
    assert "Order" in repr(orders)
    assert "Order" in orders._repr_html_()


@pytest.mark.parametrize(
    "wrong",
    [
        {"customer": 5},
        {"total": "much"},
        {"total": True},
        {"lines": {}},
        {"lines": [1]},
        {"lines": [{"article": 1}]},
        {"lines": [{}]},
        {"state": "lost"},
        {"ordered": "yesterday"},
        {"tags": "x"},
        {"tags": [1]},
        {"place": [1.0]},
        {"notes": {"n": 5}},
        {"notes": []},
        {"kind": "c"},
        {"either": 1.5},
        {"more": [1]},
    ],
    ids=repr,
)
def test_a_document_that_is_no_such_value(memory: coord.Client, wrong: dict[str, Any]) -> None:
    table = memory.table("t")
    table.insert("good", {"customer": "ann", "total": 1.0})
    table.insert("k", {"customer": "ann", "total": 1.0, **wrong})
    found = memory.table("t", Order).find(sort="_id")
    # The others can be read, and so can its document.
    assert found[0].value == Order("ann", 1.0)
    assert found[1].document["customer"]
    with pytest.raises(coord.CorruptState, match=r"'k' is no Order") as failure:
        _ = found[1].value
    assert next(iter(wrong)) in str(failure.value)


class Address(typing.TypedDict):
    city: str


class Named(typing.Protocol):
    name: str


@dataclasses.dataclass
class Customer:
    address: Address
    others: list[Address]
    named: Named | None = None


def test_a_field_of_a_class_without_instances_comes_back(memory: coord.Client) -> None:
    customers = memory.table("t", Customer)
    customer = Customer({"city": "Bonn"}, [{"city": "Ulm"}])
    customers.insert("k", customer)
    assert customers.get("k").value == customer
    memory.table("t").update("k", {"$set": {"named": {"name": "ann"}}})
    assert customers.get("k").value.named == {"name": "ann"}


def test_a_document_without_a_field_that_must_be(memory: coord.Client) -> None:
    memory.table("t").insert("k", {"customer": "ann"})
    with pytest.raises(coord.CorruptState, match="total"):
        _ = memory.table("t", Order).get("k").value


def test_a_projection_leaves_out_what_a_model_needs(memory: coord.Client) -> None:
    orders = memory.table("t", Order)
    orders.insert("k", ORDER)
    [stored] = orders.find(projection=["customer"])
    assert stored.document == {"_id": "k", "customer": "ann"}
    with pytest.raises(coord.CorruptState):
        _ = stored.value


V = TypeVar("V")


@dataclasses.dataclass
class Box(Generic[V]):
    _id: str
    value: V
    bare: tuple = ()  # type: ignore[type-arg]
    anything: object = None
    listed: list = dataclasses.field(default_factory=list)  # type: ignore[type-arg]


def test_other_types_are_taken_as_they_are(memory: coord.Client) -> None:
    boxes: coord.Table[Box[Any]] = memory.table("t", Box)
    boxes.insert("k", Box("k", {"a": 1}, (1, 2), [3], [4]))
    assert boxes.get("k").value == Box("k", {"a": 1}, (1, 2), [3], [4])
    with pytest.raises(coord.InvalidArgument, match="_id"):
        boxes.insert("k", Box("other", 1))


def test_a_model_of_pydantic_comes_back(memory: coord.Client) -> None:
    pydantic = pytest.importorskip("pydantic")

    class Item(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        name: str
        price: float = pydantic.Field(gt=0)
        at: dt.datetime
        extra: dict[str, int] = pydantic.Field(default_factory=dict)

    class Basket(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        model_config = pydantic.ConfigDict(populate_by_name=True)
        key: str = pydantic.Field(alias="_id")
        items: list[Item]
        state: State = State.NEW

    baskets = memory.table("baskets", Basket)
    basket = Basket(key="b1", items=[Item(name="a", price=1.5, at=dt.datetime(2026, 1, 1, tzinfo=UTC))])
    baskets.insert("b1", basket)
    assert baskets.get("b1").value == basket
    assert baskets.get("b1").document == {
        "_id": "b1",
        "items": [{"name": "a", "price": 1.5, "at": dt.datetime(2026, 1, 1, tzinfo=UTC), "extra": {}}],
        "state": "new",
    }
    assert memory.table("t").insert("k", {"inner": basket.items[0]}).document["inner"]["name"] == "a"
    baskets.update("b1", {"$set": {"items.0.price": -1}})
    with pytest.raises(coord.CorruptState, match="price") as failure:
        _ = baskets.get("b1").value
    assert isinstance(failure.value.__cause__, pydantic.ValidationError)
    with pytest.raises(coord.InvalidArgument):
        baskets.insert("b2", basket)


@dataclasses.dataclass
class Unfinished:
    field: Nowhere  # type: ignore[name-defined]  # noqa: F821


def test_a_value_of_another_model_is_refused_where_it_is_written(memory: coord.Client) -> None:
    orders: coord.Table[Any] = memory.table("orders", Order)
    for write in (orders.insert, orders.put, orders.replace):
        with pytest.raises(TypeError, match="'orders' are of Order, not of Line"):
            write("o1", Line("a"))
    assert orders.insert("o1", {"customer": "ann", "total": 1.0}).created
    memory.table("mixed").put("o1", Line("a"))


@pytest.mark.parametrize("model", [int, str, 5, Order("a", 1.0), "Order", list, coord.Client])
def test_what_is_no_model(memory: coord.Client, model: Any) -> None:
    with pytest.raises(TypeError, match="model"):
        memory.table("t", model)
    with pytest.raises(TypeError, match="model"):
        memory.table("t", model, cached=True)


def test_a_model_of_a_type_that_is_nowhere(memory: coord.Client) -> None:
    with pytest.raises(NameError, match="Nowhere"):
        memory.table("t", Unfinished)


def test_how_results_look(memory: coord.Client) -> None:
    table = memory.table("t")
    for n in range(120):
        table.insert(n, {"n": n, "text": "<b>" + "x" * 1000, **({"only": bson.ObjectId("0" * 24)} if n == 3 else {})})
    found = table.find(sort="n")
    page = found._repr_html_()
    assert page.count("<tr>") == 101
    assert "and 20 more" in page
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "<th>only</th>" in page
    assert "0" * 24 in page
    assert len(page) < 100_000
    assert "<p>" not in found[:0]._repr_html_() if isinstance(found[:0], coord.Found) else True
    wide = table.put("wide", {f"f{n}": n for n in range(50)})
    assert "…" in coord.Found([table.get("wide")])._repr_html_()
    assert "f49" in table.get("wide")._repr_html_()
    assert repr(table.get(5)).startswith("Stored(key=5, document={'n': 5, ")
    assert "created=True" in repr(wide)
    assert table.get(5) == table.get(5)
    assert table.get(5) != table.get(6)
    assert table.get(5) != 5
