"""Documents as values of a model, a dataclass or a model of pydantic, and models as documents.

A dataclass is made of the fields that it has, each by its type: dataclasses in it, optional ones, lists, tuples and
dicts of such, and enumerations; anything else is taken as it is. A model of pydantic validates the document itself.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from coord._errors import CorruptState

Model: TypeAlias = type[Any] | None


def check_model(model: Model) -> None:
    """Checks that documents can be values of it.

    Raises:
        TypeError: It is neither a dataclass nor a model of pydantic.
    """
    if model is None or model is dict:
        return
    if isinstance(model, type) and hasattr(model, "model_validate"):
        return
    if isinstance(model, type) and dataclasses.is_dataclass(model):
        # A name that stands for nothing is found here, not at the first document.
        _types(model)
        return
    raise TypeError(f"a model is a dataclass or a model of pydantic, not {model!r}")


def check_value(value: object, model: Model, table: str) -> None:
    """Checks that a value is none of another model: what is written could not be read.

    Raises:
        TypeError: It is.
    """
    if model is None or model is dict or isinstance(value, (model, type)):
        return
    if dataclasses.is_dataclass(value) or hasattr(type(value), "model_dump"):
        kind = type(value).__qualname__
        raise TypeError(
            f"the values of table {table!r} are of {model.__qualname__}, not of {kind}; a dict is taken as well"
        )


def value_of(document: dict[str, Any], model: Model) -> Any:
    """The document as a value of the model.

    Raises:
        CorruptState: It is none.
    """
    if model is None or model is dict:
        return document
    try:
        if hasattr(model, "model_validate"):
            return model.model_validate(document)
        return _dataclass(document, model, "")
    except (ValueError, TypeError) as error:
        text = f"the document {document.get('_id')!r} is no {model.__name__}: {error}"
        raise CorruptState(text) from error


@functools.lru_cache(maxsize=256)
def _types(model: Any) -> dict[str, Any]:
    """The types of a dataclass's fields."""
    return typing.get_type_hints(model)


def _dataclass(document: object, model: Any, path: str) -> Any:
    if not isinstance(document, Mapping):
        raise TypeError(f"{_at(path)} is a document, not {document!r}")
    kinds, given = _types(model), {}
    for field in dataclasses.fields(model):
        if not field.init:
            continue
        place = f"{path}.{field.name}" if path else field.name
        if field.name in document:
            given[field.name] = _value(document[field.name], kinds[field.name], place)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ValueError(f"it has no field '{place}'")
    return model(**given)


def _value(value: Any, kind: Any, path: str) -> Any:
    """A value of a document as one of this type."""
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _one_of(value, parts, path)
    if origin is typing.Literal:
        if value not in parts:
            raise ValueError(f"{_at(path)} is one of {parts}, not {value!r}")
        return value
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _sequence(value, origin, parts, path)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise TypeError(f"{_at(path)} is a document, not {value!r}")
        return {name: _value(one, parts[-1], f"{path}.{name}") for name, one in value.items()}
    if kind in (Any, object) or not isinstance(kind, type):
        # Whatever it is; a type variable, or what else there may be.
        return value
    if dataclasses.is_dataclass(kind) and not isinstance(value, kind):
        return _dataclass(value, kind, path)
    if issubclass(kind, enum.Enum):
        try:
            return kind(value)
        except ValueError as error:
            raise ValueError(f"{_at(path)}: {error}") from None
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    try:
        is_one = isinstance(value, kind) and not (isinstance(value, bool) and kind is int)
    except TypeError:
        # A class that does not tell what its instances are: a TypedDict, most protocols.
        return value
    if not is_one:
        raise TypeError(f"{_at(path)} is of the type {kind.__name__}, not {value!r}")
    return value


def _sequence(value: Any, kind: type[Any], parts: tuple[Any, ...], path: str) -> Any:
    if not isinstance(value, list):
        raise TypeError(f"{_at(path)} is an array, not {value!r}")
    each = parts[0] if parts else Any
    kinds: Sequence[Any] = [each] * len(value)
    if issubclass(kind, tuple) and parts[-1:] != (Ellipsis,):
        kinds = parts
        if len(parts) != len(value):
            raise ValueError(f"{_at(path)} has {len(parts)} elements, not {len(value)}")
    pairs = enumerate(zip(value, kinds, strict=True))
    made = [_value(one, kind_of_one, f"{path}.{index}") for index, (one, kind_of_one) in pairs]
    return tuple(made) if issubclass(kind, tuple) else made


def _one_of(value: Any, kinds: tuple[Any, ...], path: str) -> Any:
    """A value as the first of these types that it can be, exactly so if possible."""
    if value is None and types.NoneType in kinds:
        return None
    if type(value) in kinds:
        return value
    reasons = []
    for kind in kinds:
        if kind is types.NoneType:
            continue
        try:
            return _value(value, kind, path)
        except (ValueError, TypeError) as error:
            reasons.append(str(error))
    raise TypeError("; ".join(reasons) or f"{_at(path)} is none of its types")


def _at(path: str) -> str:
    return f"'{path}'" if path else "it"
