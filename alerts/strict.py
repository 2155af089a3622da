"""Strict TOML into frozen structs: every error names its key, what was found and what is possible.

A misspelt key must not be ignored, so every struct read here is declared with ``forbid_unknown_fields=True``.
All problems of a file are told at once: a person mends a file in one round, not in ten.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
import types
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Struct

T = TypeVar("T", bound=Struct)


class Problem(Struct, frozen=True):
    """One thing that is wrong. ``key`` is its place, empty for the whole.

    Places in a list are counted from 1: ``pump[1].family`` is that of the first ``[[pump]]``.
    """

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


class ConfigError(Exception):
    """A file that cannot be used as it stands. ``str()`` is one sentence a problem, a line each."""

    def __init__(self, problems: Sequence[Problem], *, source: str = "") -> None:
        self.problems = tuple(problems)
        self.source = source
        super().__init__(
            "\n".join(f"{source}: {problem}" if source else str(problem) for problem in problems)
        )


def read_toml(text: str, type_: type[T], *, source: str) -> T:
    """The text as ``type_``. ``source`` is the file's name, for people.

    Raises ConfigError with every problem found.
    """
    if text.startswith("\ufeff"):
        message = "it begins with a byte order mark; save it as UTF-8 without BOM."
        raise ConfigError([Problem("", message)], source=source)
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(
            [Problem("", "it is nested too deeply; write it flatter.")], source=source
        ) from None
    except ValueError as error:
        raise ConfigError(
            [Problem("", f"it is not TOML 1.0: {_sentence(str(error))}")], source=source
        ) from error
    problems = list(_problems(data, type_, ""))
    if problems:
        raise ConfigError(problems, source=source)
    try:
        return msgspec.convert(data, type_)
    except msgspec.ValidationError as error:
        raise ConfigError([_from_msgspec(error, "", data)], source=source) from error


def nearest(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` where a known word is near, else the empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _problems(value: object, type_: Any, key: str) -> Iterator[Problem]:
    """What is wrong with one value and everything in it."""
    struct = _struct_in(type_)
    item_type = _item_type(type_)
    if struct is not None and isinstance(value, dict):
        yield from _problems_of_table(value, struct, key)
    elif item_type is not None and isinstance(value, list):
        for position, item in enumerate(value, start=1):
            yield from _problems(item, item_type, f"{key}[{position}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(key, f"{value} is not a number that can be used; give a finite one.")
    else:
        try:
            msgspec.convert(value, type_)
        except msgspec.ValidationError as error:
            yield _from_msgspec(error, key, value, type_)


def _problems_of_table(table: dict[str, object], struct: type[Struct], key: str) -> Iterator[Problem]:
    """What is wrong with a table: unknown keys, missing keys, and each value."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    tag_field = struct.__struct_config__.tag_field
    for name, value in table.items():
        place = f"{key}.{name}" if key else name
        if name in fields:
            yield from _problems(value, fields[name].type, place)
        elif name != tag_field:
            known = ", ".join(sorted(fields))
            yield Problem(place, f"there is no such key{nearest(name, fields) or f'; known are {known}.'}")
    for name, field in fields.items():
        if field.required and name not in table:
            yield Problem(f"{key}.{name}" if key else name, "it is required and was not given.")


def _struct_in(type_: Any) -> type[Struct] | None:
    """The struct of ``Struct`` or ``Struct | None``; a union of several is left to msgspec."""
    structs = [
        member for member in _members(type_) if isinstance(member, type) and issubclass(member, Struct)
    ]
    return structs[0] if len(structs) == 1 else None


def _item_type(type_: Any) -> Any | None:
    """The type of the items of ``list[X]`` or ``tuple[X, ...]``."""
    for member in _members(type_):
        arguments = get_args(member)
        if get_origin(member) is list and arguments:
            return arguments[0]
        if get_origin(member) is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
            return arguments[0]
    return None


def _members(type_: Any) -> tuple[Any, ...]:
    """The members of a union; a single type is a union of one."""
    if get_origin(type_) is Annotated:
        return _members(get_args(type_)[0])
    if get_origin(type_) in (Union, types.UnionType):
        return tuple(member for argument in get_args(type_) for member in _members(argument))
    return (type_,)


def _choices(type_: Any) -> list[str]:
    """The values of an enumeration or a Literal, where those are all that is possible."""
    found: list[str] = []
    for member in _members(type_):
        if isinstance(member, type) and issubclass(member, Enum):
            found += [str(choice.value) for choice in member]
        elif get_origin(member) is Literal:
            found += [str(choice) for choice in get_args(member)]
    return found


_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<place>[^`]*)`)?$", re.DOTALL)


def _from_msgspec(error: msgspec.ValidationError, key: str, value: object, type_: Any = None) -> Problem:
    match = _PLACE.match(str(error))
    assert match is not None
    inner = _counted_from_1((match["place"] or "").removeprefix("." if not key else ""))
    place = f"{key}{inner}"
    choices = _choices(type_)
    if choices:
        hint = nearest(str(value), choices)
        return Problem(place, f"{value!r} is not known; known are {', '.join(choices)}{hint or '.'}")
    if inner or isinstance(value, dict | list):
        return Problem(place, _sentence(match["what"]))
    return Problem(place, f"found {value!r}; {_sentence(match['what'])}")


def _counted_from_1(place: str) -> str:
    """A place as msgspec names it, which counts from 0."""
    return re.sub(r"\[(\d+)\]", lambda index: f"[{int(index[1]) + 1}]", place)


def _sentence(text: str) -> str:
    text = text.replace("`", "").strip()
    return f"{text[:1].lower()}{text[1:]}{'' if text.endswith(('.', '?', '!')) else '.'}"
