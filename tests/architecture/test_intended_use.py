"""What Dripwatch is not for is said in the same words wherever it is shown."""

from __future__ import annotations

import re
from html import unescape

import pytest

from gateway.intended_use import SHORT, full_text
from tests.architecture.house import ROOT


def words(text: str) -> str:
    """What a reader reads: without marks of quotation, emphasis and HTML, on one line."""
    text = re.sub(r"<[^>]+>|^> ?|\*", "", text, flags=re.MULTILINE)
    return " ".join(unescape(text).split())


@pytest.mark.parametrize("shown", ["INTENDED_USE.md", "alerts/dashboard/templates/base.html"])
def test_the_short_statement_is_the_same_everywhere(shown: str) -> None:
    assert SHORT in words((ROOT / shown).read_text(encoding="utf-8"))


def test_the_short_statement_is_two_sentences() -> None:
    assert re.findall(r"[.!?](?=\s|$)", SHORT) == [".", "."]


def test_the_whole_statement_travels_with_the_package() -> None:
    assert full_text() == (ROOT / "INTENDED_USE.md").read_text(encoding="utf-8")
