"""A configuration that is wrong says where, what was found, and what is possible."""

from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from alerts.condition import Urgency
from alerts.strict import ConfigError, read_toml


class Pump(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: Annotated[str, Meta(pattern="^[a-z0-9-]{1,32}$")]
    family: Literal["alaris", "dummy"] = "dummy"
    baud: Annotated[int, Meta(ge=300, le=115200)] | None = None


class Plant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    home: str
    pump: tuple[Pump, ...] = ()
    spare: Pump | None = None
    urgency: Urgency = Urgency.TIMED
    limit_ml_h: float = 1.0


class Checked(Struct, frozen=True, forbid_unknown_fields=True):
    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low must not be above high")


def problems_of(text: str, type_: type[Struct] = Plant) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        read_toml(text, type_, source="plant.toml")
    return str(refused.value).splitlines()


def test_a_file_without_a_mistake_is_read_into_frozen_structs():
    plant = read_toml(
        'home = "h-1"\nlimit_ml_h = 4\n[[pump]]\nid = "p1"\nfamily = "alaris"\n', Plant, source="plant.toml"
    )
    assert plant == Plant(home="h-1", pump=(Pump(id="p1", family="alaris"),), limit_ml_h=4.0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "plant.toml: home: it is required and was not given."),
        (
            '\ufeffhome = "h"',
            "plant.toml: it begins with a byte order mark; save it as UTF-8 without BOM.",
        ),
        ('home = "h"\nhom = 1', "plant.toml: hom: there is no such key; did you mean 'home'?"),
        (
            'home = "h"\nzzz = 1',
            "plant.toml: zzz: there is no such key; known are home, limit_ml_h, pump, spare, urgency.",
        ),
        ("home = 3", "plant.toml: home: found 3; expected str, got int."),
        (
            'home = "h"\nurgency = "vitl"',
            "plant.toml: urgency: 'vitl' is not known; known are vital, critical, timed, routine; "
            "did you mean 'vital'?",
        ),
        ('home = "h"\nlimit_ml_h = nan', "plant.toml: limit_ml_h: nan is not a number that can be used"),
        ('home = "h"\nlimit_ml_h = -inf', "plant.toml: limit_ml_h: -inf is not a number that can be used"),
        ('home = "h"\npump = 3', "plant.toml: pump: found 3; expected array, got int."),
        (
            'home = "h"\n[[pump]]\nid = "a"\n[[pump]]\nid = "b"\nfamily = "alariss"',
            "plant.toml: pump[2].family: 'alariss' is not known; known are alaris, dummy",
        ),
        (
            'home = "h"\n[[pump]]\nid = "a"\nbaud = 1',
            "plant.toml: pump[1].baud: found 1; expected int >= 300.",
        ),
        (
            'home = "h"\n[spare]\nid = "a"\nfamly = "dummy"',
            "plant.toml: spare.famly: there is no such key; did you mean 'family'?",
        ),
        (
            'home = "h"\n\nurgency = = 3',
            "plant.toml: it is not TOML 1.0: invalid value (at line 3, column 11).",
        ),
        ("x = " + "[" * 5000, "plant.toml: it is nested too deeply; write it flatter."),
        ("x = " + "1" * 5000, "plant.toml: it is not TOML 1.0: exceeds the limit"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_the_place(text: str, sentence: str):
    found = problems_of(text)
    assert len(found) == 1
    assert found[0].startswith(sentence)


def test_all_mistakes_are_told_at_once():
    found = problems_of('hom = "h"\nurgency = 1\n[[pump]]\nid = "NO"\nbaud = "fast"')
    assert [line.split(": ")[1] for line in found] == ["hom", "urgency", "pump[1].id", "pump[1].baud", "home"]


def test_values_that_contradict_each_other_are_told_by_the_struct_itself():
    assert problems_of("low = 2\nhigh = 1", Checked) == ["plant.toml: low must not be above high."]
