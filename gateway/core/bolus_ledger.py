"""Boluses and demands as they are remembered, and what follows from them by counting alone.

Times are the monitor's own continuous ``t_ms``. The beginning of a bolus is known to one poll: it lies after
``begun_after_t_ms``, and not after ``begun_t_ms``.

``demand_pattern`` (prescription page, section 3), as the page leaves it open:

* *A bolus at nearly every lockout for two hours*: at least 80 % of all the boluses that lockout and limit
  allow in two hours (or as long as five of them take) were begun within a quarter of a lockout of when they
  first could be. A patient who needs much is not so regular; a hand that waits for the pump is. Over below
  60 %.
* *Three demands for each one given*: in two hours three times as many demands as boluses, and at least six
  were refused, over an hour and a half or more, so that one bad quarter of an hour is none. Over when there
  are fewer than two for each one given, or none was refused for an hour.
"""

from __future__ import annotations

from math import ceil, floor, inf

import msgspec
from msgspec import Struct

from gateway.core.prescription import Demand

TWO_HOURS_MS = 7_200_000
FEWEST_POSSIBLE = 5
"""Over so many possible boluses, if they take longer than two hours."""
NEARLY_EVERY = 0.8
NO_LONGER_NEARLY_EVERY = 0.6
PROMPT_SHARE_OF_LOCKOUT = 0.25
DEMANDS_FOR_EACH = 3
NO_LONGER_FOR_EACH = 2
FEWEST_REFUSED = 6
REFUSED_OVER_MS = 5_400_000
NONE_REFUSED_FOR_MS = 3_600_000
MOST_REMEMBERED = 1000
"""Of a pump that says nonsense not more than this is kept."""


class Bolus(Struct):
    """A bolus that is on, or of which the last counts have not come. Mutable."""

    begun_after_t_ms: int
    """The reading before: it cannot have begun earlier."""
    begun_t_ms: int
    """The first reading that shows it."""
    seen_t_ms: int
    """The latest that shows it."""
    ended_t_ms: int | None = None
    """The first that does not."""
    by_counts: bool = False
    """Only its counts show it."""
    readings: int = 0
    """In how many readings the pump has said so itself."""
    at_most: int = 1
    """How many boluses may be in this one's volume: some counts did not come, or nobody saw."""
    counted_ml: float = 0.0
    ordered_ml: float = 0.0
    """The most that the phases gave meanwhile."""
    own_ml: float = 0.0
    """What of the counted volume was left to the phases."""
    certain: bool = False
    too_much_told: bool = False

    @property
    def volume_ml(self) -> float:
        """Counted above the phases' own."""
        return self.counted_ml - self.own_ml


class Given(Struct, frozen=True, array_like=True):
    """A bolus that is over."""

    begun_after_t_ms: int
    begun_t_ms: int
    seen_t_ms: int
    ended_t_ms: int
    volume_ml: float
    """One that was no larger than tolerated counts as ordered at most: so what its counts share with those of
    the phases does not add up over many."""
    prompt: bool
    """Begun about as soon as it could be."""


class BolusLedger(Struct):
    """All that is remembered of boluses and demands."""

    now: Bolus | None = None
    given: list[Given] = msgspec.field(default_factory=list)
    """In order of time."""
    state_seen: bool = False
    """The pump has a word, or a rate, for a bolus."""
    asked_t_ms: list[int] = msgspec.field(default_factory=list)
    refused_t_ms: list[int] = msgspec.field(default_factory=list)
    look_t_ms: int | None = None
    """When a pattern of demands is to be looked at again though nothing happens."""
    waiting_ml: float = 0.0
    """A small surplus of the last counts: it may be the first part of a bolus that only its counts show, so a
    surplus is not judged before the next."""
    waits: int = 0
    """Such surpluses in a row."""
    allowance_ml: float = 0.0
    """What of boluses that cannot be told from the phases' counts may still come at once."""
    allowance_t_ms: int | None = None
    bolus_setting_wrong: int = 0
    """Readings in a row with another bolus set than the ordered one."""
    lockout_setting_wrong: int = 0

    def forget_before(self, t_ms: int) -> None:
        """What began or happened before this is no longer needed."""
        self.given = [one for one in self.given if one.begun_t_ms >= t_ms][-MOST_REMEMBERED:]
        self.asked_t_ms = [one for one in self.asked_t_ms if one >= t_ms][-MOST_REMEMBERED:]
        self.refused_t_ms = [one for one in self.refused_t_ms if one >= t_ms][-MOST_REMEMBERED:]

    def forget_times(self) -> None:
        """Time has passed of which nobody knows how long: nothing can be held against what comes."""
        self.given = []
        self.asked_t_ms = []
        self.refused_t_ms = []

    def given_after_ml(self, after_t_ms: float) -> float:
        """Volume of the boluses that certainly began after this."""
        return sum(one.volume_ml for one in self.given if one.begun_after_t_ms >= after_t_ms)


def pace_ms(demand: Demand) -> float:
    """The mean time for one bolus of somebody who has as many as lockout and limit allow."""
    pace = float(_lockout_from_start_ms(demand))
    if demand.limit_ml is not None:
        pace = max(pace, demand.limit_window_ms / _most_in_window(demand))
    return pace


def most_between(demand: Demand, elapsed_ms: float) -> int:
    """How many boluses at most may be begun in a time of this length."""
    most = 1 + floor(elapsed_ms / _lockout_from_start_ms(demand))
    if demand.limit_ml is not None:
        most = min(most, _most_in_window(demand) * (1 + ceil(elapsed_ms / demand.limit_window_ms)))
    return most


def remembered_ms(demand: Demand) -> float:
    """How far back anything is judged."""
    return max(pattern_window_ms(demand), demand.limit_window_ms, _lockout_from_start_ms(demand)) * 1.01


def pattern_window_ms(demand: Demand) -> float:
    """Two hours, or as long as five boluses take at least."""
    return max(float(TWO_HOURS_MS), FEWEST_POSSIBLE * pace_ms(demand))


def is_prompt(ledger: BolusLedger, demand: Demand, begun_t_ms: int, poll_ms: int) -> bool:
    """Whether a bolus that begins now begins about as soon as lockout and limit allow it."""
    if not ledger.given:
        return False
    last = ledger.given[-1]
    could_t_ms = (last.ended_t_ms if demand.lockout_from_end else last.begun_t_ms) + demand.lockout_ms
    if demand.limit_ml is not None:
        most = _most_in_window(demand)
        if len(ledger.given) >= most:
            could_t_ms = max(could_t_ms, ledger.given[-most].begun_t_ms + demand.limit_window_ms)
    return begun_t_ms - could_t_ms <= PROMPT_SHARE_OF_LOCKOUT * demand.lockout_ms + poll_ms


def prompt_share(ledger: BolusLedger, demand: Demand, t_ms: int) -> float:
    """Which share of all the boluses that were possible was taken, each as soon as it could be."""
    window_ms = pattern_window_ms(demand)
    prompt = sum(one.prompt for one in ledger.given if t_ms - one.begun_t_ms < window_ms)
    return prompt / floor(window_ms / pace_ms(demand) + 1e-9)


class Demands(Struct, frozen=True):
    """How often somebody has asked in the last two hours."""

    asked: int
    refused: int
    given: int
    refused_over_ms: int
    """From the first refused to the last."""
    since_refused_ms: float

    @property
    def for_each(self) -> float:
        """Demands for each one given."""
        return self.asked / max(self.given, 1)

    def is_pattern(self) -> bool:
        """Whether three are asked for each one given, and that for long."""
        lasted = self.refused >= FEWEST_REFUSED and self.refused_over_ms >= REFUSED_OVER_MS
        return lasted and self.for_each >= DEMANDS_FOR_EACH

    def goes_on(self) -> bool:
        """Whether what was a pattern is one still."""
        return self.since_refused_ms < NONE_REFUSED_FOR_MS and self.for_each >= NO_LONGER_FOR_EACH


def demands(ledger: BolusLedger, t_ms: int) -> Demands:
    """The demands of the last two hours. A pump may report every demand, or only those that it refused."""
    from_t_ms = t_ms - TWO_HOURS_MS
    refused = [one for one in ledger.refused_t_ms if one > from_t_ms]
    given = sum(one.begun_t_ms > from_t_ms for one in ledger.given)
    asked = sum(one > from_t_ms for one in ledger.asked_t_ms)
    return Demands(
        asked=max(asked, len(refused) + given),
        refused=len(refused),
        given=given,
        refused_over_ms=refused[-1] - refused[0] if refused else 0,
        since_refused_ms=t_ms - refused[-1] if refused else inf,
    )


def _lockout_from_start_ms(demand: Demand) -> int:
    return demand.lockout_ms + (demand.bolus_over_ms or 0 if demand.lockout_from_end else 0)


def _most_in_window(demand: Demand) -> int:
    assert demand.limit_ml is not None, "asked only where there is a limit"
    return max(1, floor(demand.limit_ml / demand.bolus_ml + 1e-9))
