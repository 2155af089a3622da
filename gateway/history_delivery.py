"""How a batch reaches the history: what each answer of the server means, when to try again, what to say.

Judgement without a clock: the thread in gateway/history.py writes what it is given, tells
what came of it, and waits as long as it is told.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

RETRY_AFTER_MIN_MS = 1_000
RETRY_AFTER_MAX_MS = 60_000
SLOW_RETRY_MS = 300_000
"""How often is tried what will not go before somebody has mended it."""
ASKED_TO_WAIT_MAX_MS = 3_600_000
"""A server may ask for more patience (Retry-After), but not for any."""

PROBE = "dripwatch history=1i"
"""A line that no server has a reason to refuse, of whatever time the server has."""

_WRITTEN = 204
_REFUSED_FOR_CONTENT = (400, 413, 422)
_ASKS_FOR_PATIENCE = (429, 503)
_WORDS = {
    401: "the server does not accept the token: put one that is valid into history.token_file ({token_file})",
    403: "the token may not write to bucket {bucket!r}: give it the right to, or put another one into"
    " history.token_file ({token_file})",
    404: "the server knows no bucket {bucket!r} of organisation {org!r}, or has no InfluxDB 2 API: make the"
    " bucket, or correct history.url, history.org and history.bucket",
}


class Target(Struct, frozen=True, kw_only=True):
    """Where it goes, for the sentences."""

    org: str
    bucket: str
    token_file: str


class Trouble(StrEnum):
    """Why there was no answer."""

    NO_ANSWER = "no answer"
    FILE = "file"


class Answer(Struct, frozen=True, kw_only=True):
    """What came of one write: a status of HTTP, or why there was none."""

    status: int | None = None
    retry_after_s: int | None = None
    trouble: Trouble = Trouble.NO_ANSWER
    words: str = ""
    """What the library or the server says."""


class Step(Struct, frozen=True, kw_only=True):
    """What follows from an answer."""

    done: bool = False
    """Nothing of the batch is left to write."""
    wait_ms: int = 0
    note: str | None = None
    """A sentence for the engineer's log: said when something changes, not each time."""


class Delivery:
    """The way of each batch: ``begin``, then write ``lines`` and tell ``answered`` until done."""

    def __init__(self, target: Target) -> None:
        self.set_aside = 0
        """Lines that the server refuses for what they are."""
        self._target = target
        self._parts: list[str] = []
        self._failures = 0
        self._noted: set[int | Trouble] = set()
        """What has been said since a write succeeded last."""
        self._probing = False
        self._takes_others = False
        """The server takes what is surely right: what it refuses of this batch is the fault of the batch."""
        self._set_aside_of_batch = 0
        self._refusal = ""

    @property
    def lines(self) -> str:
        """What is to be written now."""
        return PROBE if self._probing else self._parts[-1]

    def begin(self, batch: str) -> None:
        """Take the next batch."""
        self._parts = [batch]
        self._probing = self._takes_others = False
        self._set_aside_of_batch = 0

    def answered(self, answer: Answer) -> Step:
        """The server has answered, or has not."""
        probed, self._probing = self._probing, False
        if answer.status == _WRITTEN:
            if probed:
                self._takes_others = True
            else:
                self._parts.pop()
            return self._went_on()
        if answer.status in _REFUSED_FOR_CONTENT and not probed:
            if self._takes_others:
                self._refused(answer)
                return self._went_on()
            # Some servers answer so to a wrong address: nothing is left out before that is known.
            self._probing = True
            return Step()
        return self._in_trouble(answer)

    def _in_trouble(self, answer: Answer) -> Step:
        words, slow = self._trouble(answer)
        what = answer.trouble if answer.status is None else answer.status
        note = f"history: {words}" if what not in self._noted else None
        self._noted.add(what)
        self._failures += 1
        wait_ms = min(RETRY_AFTER_MIN_MS * 2 ** min(self._failures - 1, 16), RETRY_AFTER_MAX_MS)
        if slow:
            wait_ms = SLOW_RETRY_MS
        elif answer.status in _ASKS_FOR_PATIENCE and answer.retry_after_s is not None:
            wait_ms = min(max(answer.retry_after_s * 1_000, RETRY_AFTER_MIN_MS), ASKED_TO_WAIT_MAX_MS)
        return Step(wait_ms=wait_ms, note=note)

    def _refused(self, answer: Answer) -> None:
        """One bad line must not take the others with it: halves are tried until it is alone."""
        lines = self._parts.pop().split("\n")
        if len(lines) > 1:
            half = len(lines) // 2
            self._parts.extend(("\n".join(lines[half:]), "\n".join(lines[:half])))
        else:
            self.set_aside += 1
            self._set_aside_of_batch += 1
            self._refusal = f"{answer.status}{f': {answer.words}' if answer.words else ''}"

    def _went_on(self) -> Step:
        notes = []
        if self._noted:
            notes.append("history: is being written again")
            self._noted.clear()
        self._failures = 0
        done = not self._parts
        if done and self._set_aside_of_batch:
            notes.append(
                f"history: {self._set_aside_of_batch} lines left out, the server refuses their content"
                f" ({self._refusal}); {self.set_aside} since the start"
            )
        return Step(done=done, note="; ".join(notes) or None)

    def _trouble(self, answer: Answer) -> tuple[str, bool]:
        """What is wrong, in a sentence, and whether it will not go before somebody has mended it."""
        status, target = answer.status, self._target
        if status is None and answer.trouble is Trouble.FILE:
            return f"history.token_file: {answer.words}", True
        if status is None:
            return (
                f"the server cannot be reached ({answer.words}): what is to be written waits here",
                False,
            )
        if status in _WORDS:
            words = _WORDS[status].format(token_file=target.token_file, bucket=target.bucket, org=target.org)
            return f"{words} (it answered {status})", True
        if status == 429 or status >= 500:
            return f"the server cannot write now (it answered {status}): it is tried again", False
        return (
            f"at history.url is no InfluxDB 2 API (it answered {status} to a write): correct history.url",
            True,
        )
