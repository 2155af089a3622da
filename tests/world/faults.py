"""What can go wrong in the fake world besides the pumps themselves, and how often: a table, and a draw."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from tests.world.world import World

S, MIN, H, DAY = 1_000, 60_000, 3_600_000, 86_400_000

WIRE = frozenset({"unplugged", "cable_pulled", "silent", "noisy_line", "lossy_line", "slow", "doubled"})
"""Between pump and gateway. All but the first happen in the simulated device."""
POWER = frozenset({"power_cut", "power_cut_while_writing", "stopped"})
"""The gateway does not watch meanwhile."""


@dataclass(frozen=True, kw_only=True)
class Mishap:
    """One thing that goes wrong from one time to another."""

    kind: str
    at_ms: int
    until_ms: int
    strength: float = 1.0
    pump: str = ""

    def __str__(self) -> str:
        what = f"{self.kind} {self.strength:.3g}{' ' if self.pump else ''}{self.pump}"
        return f"{self.at_ms / S:10.1f} s to {self.until_ms / S:10.1f} s: {what}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """How often a day, for how long, and how badly."""

    a_day: float
    lasts_s: tuple[float, float]
    strength: tuple[float, float] = (1.0, 1.0)


ROWS: dict[str, Row] = {
    "unplugged": Row(a_day=0.6, lasts_s=(1, 3_600)),
    "cable_pulled": Row(a_day=0.4, lasts_s=(5, 3_600)),
    "silent": Row(a_day=0.5, lasts_s=(5, 3_600)),
    "noisy_line": Row(a_day=0.6, lasts_s=(10, 1_200), strength=(0.0005, 0.05)),
    "lossy_line": Row(a_day=0.4, lasts_s=(10, 3_600), strength=(0.02, 0.5)),
    "slow": Row(a_day=0.4, lasts_s=(10, 1_200), strength=(0.3, 3.5)),
    "doubled": Row(a_day=0.3, lasts_s=(10, 3_600), strength=(0.05, 0.5)),
    "power_cut": Row(a_day=0.8, lasts_s=(2, 7_200)),
    "power_cut_while_writing": Row(a_day=2.5, lasts_s=(2, 600)),
    "stopped": Row(a_day=0.4, lasts_s=(10, 1_200)),
    "network_cut": Row(a_day=1.5, lasts_s=(2, 36_000)),
    "network_slow": Row(a_day=0.6, lasts_s=(30, 1_800), strength=(0.2, 4.0)),
    "doubles": Row(a_day=0.6, lasts_s=(10, 3_600)),
    "forgets": Row(a_day=0.8, lasts_s=(5, 900)),
    "reorders": Row(a_day=0.5, lasts_s=(10, 3_600)),
    "session_killed": Row(a_day=1.5, lasts_s=(0, 0)),
    "broker_killed": Row(a_day=1.0, lasts_s=(0, 0)),
    "receipts_lost": Row(a_day=0.8, lasts_s=(5, 1_800)),
    "old_receipts": Row(a_day=0.8, lasts_s=(5, 600)),
    "board_restarted": Row(a_day=1.0, lasts_s=(1, 60)),
    "board_away": Row(a_day=0.6, lasts_s=(5, 7_200)),
    "card_slow": Row(a_day=0.6, lasts_s=(10, 600), strength=(0.2, 8.0)),
    "card_refuses": Row(a_day=0.6, lasts_s=(1, 1_800)),
    "clock_stepped": Row(a_day=0.8, lasts_s=(5, 3_600), strength=(-7_200, 7_200)),
    "overloaded": Row(a_day=0.3, lasts_s=(0, 0)),
}


def draw_mishaps(pumps: Sequence[str], until_ms: int, chance: random.Random, *, days: float) -> list[Mishap]:
    """A timetable: of each kind some, none of them after ``until_ms``."""
    drawn: list[Mishap] = []
    for kind, row in ROWS.items():
        for pump in pumps if kind in WIRE else ("",):
            free_ms = 5 * MIN
            for at_ms in sorted(
                chance.uniform(free_ms, until_ms) for _ in range(_count(row.a_day * days, chance))
            ):
                least_s, most_s = row.lasts_s
                lasts_s = least_s * (most_s / least_s) ** chance.random() if least_s else 0.0
                if kind == "network_cut" and days > 1 and chance.random() < 0.1:
                    lasts_s = chance.uniform(1, 4) * DAY / S
                ends_ms = min(round(at_ms + lasts_s * S), until_ms - S)
                if free_ms <= at_ms <= ends_ms:
                    low, high = row.strength
                    drawn.append(
                        Mishap(
                            kind=kind,
                            at_ms=round(at_ms),
                            until_ms=ends_ms,
                            strength=chance.uniform(low, high),
                            pump=pump,
                        )
                    )
                    free_ms = ends_ms + S
    return sorted(drawn, key=lambda mishap: (mishap.at_ms, mishap.kind, mishap.pump))


def _count(expected: float, chance: random.Random) -> int:
    """So many on average: a Poisson number."""
    number, passed = 0, chance.expovariate(1.0)
    while passed < expected:
        number += 1
        passed += chance.expovariate(1.0)
    return number


def happen(world: World, mishap: Mishap) -> None:
    """Put it into the world's time."""
    if mishap.kind in WIRE and mishap.kind != "unplugged":
        return  # the device knows
    begin, end = _DEEDS[mishap.kind](world, mishap)

    def both(do: Callable[[], None]) -> Callable[[], None]:
        def done() -> None:
            world.promises.path_broke()
            do()

        return done

    world.at(mishap.at_ms, both(begin))
    if end is not None:
        world.at(mishap.until_ms, both(end))


Deed = tuple[Callable[[], None], Callable[[], None] | None]


def _unplugged(world: World, mishap: Mishap) -> Deed:
    return partial(world.home.unplug, mishap.pump), partial(world.home.plug_in, mishap.pump)


def _booted(world: World, off_ms: int) -> None:
    """The power is back; sometimes the machine's clock has stood meanwhile, and is set after a while."""
    home = world.home
    if home.on:
        home.cut_at = None
        return
    if home.clock_is_set and world.random.random() < 0.4:
        right_ms = home.clock_error_ms
        home.clock_is(error_ms=right_ms - off_ms, is_set=False)

        def set_again() -> None:
            home.clock_is(error_ms=home.clock_error_ms + off_ms, is_set=True)

        world.after(round(world.random.uniform(2, 300) * S), set_again)
    home.power_on()


def _power_cut(world: World, mishap: Mishap) -> Deed:
    return world.home.cut_power, partial(_booted, world, mishap.until_ms - mishap.at_ms)


def _power_cut_while_writing(world: World, mishap: Mishap) -> Deed:
    def arm() -> None:
        if world.home.on:
            world.home.cut_at = world.random.choice(("commit", "writing", "written", "release", "released"))

    return arm, partial(_booted, world, mishap.until_ms - mishap.at_ms)


def _stopped(world: World, mishap: Mishap) -> Deed:
    return world.home.stop, partial(_booted, world, mishap.until_ms - mishap.at_ms)


def _network_cut(world: World, mishap: Mishap) -> Deed:
    return world.broker.cut, world.broker.heal


def _network_slow(world: World, mishap: Mishap) -> Deed:
    usual_ms = world.broker.network_ms

    def is_now(network_ms: int) -> None:
        world.broker.network_ms = network_ms

    return partial(is_now, round(mishap.strength * S)), partial(is_now, usual_ms)


def _broker_does(name: str, world: World, mishap: Mishap) -> Deed:
    return partial(setattr, world.broker, name, True), partial(setattr, world.broker, name, False)


def _session_killed(world: World, mishap: Mishap) -> Deed:
    return world.broker.kill_session, None


def _broker_killed(world: World, mishap: Mishap) -> Deed:
    return world.broker.killed, None


def _old_receipts(world: World, mishap: Mishap) -> Deed:
    """A broker that forgets, and hands out receipts that are none."""
    broker = world.broker

    def begin() -> None:
        broker.forgets = True
        again()

    def again() -> None:
        broker.says_old_receipts()
        if world.now_ms + 3 * S < mishap.until_ms:
            world.after(3 * S, again)

    return begin, partial(setattr, broker, "forgets", False)


def _board_restarted(world: World, mishap: Mishap) -> Deed:
    return world.board.restart, world.board.reconnect


def _board_away(world: World, mishap: Mishap) -> Deed:
    return world.board.disconnect, world.board.reconnect


def _card_slow(world: World, mishap: Mishap) -> Deed:
    return partial(world.card_is, round(mishap.strength * S)), partial(world.card_is, 20)


def _card_refuses(world: World, mishap: Mishap) -> Deed:
    return partial(world.card_is, None), partial(world.card_is, 20)


def _clock_stepped(world: World, mishap: Mishap) -> Deed:
    home, by_ms = world.home, round(mishap.strength * S)

    def step(by_ms: int) -> None:
        if not home.on or not home.clock_is_set:
            # The length of a gap is told by the wall clock: it is not set wrong in the midst of one.
            world.after(10 * S, partial(step, by_ms))
            return
        home.clock_is(error_ms=home.clock_error_ms + by_ms, is_set=home.clock_is_set)

    return partial(step, by_ms), partial(step, -by_ms)


def _overloaded(world: World, mishap: Mishap) -> Deed:
    def lose() -> None:
        world.home.losses += 3

    return lose, None


_DEEDS: dict[str, Callable[[World, Mishap], Deed]] = {
    "unplugged": _unplugged,
    "power_cut": _power_cut,
    "power_cut_while_writing": _power_cut_while_writing,
    "stopped": _stopped,
    "network_cut": _network_cut,
    "network_slow": _network_slow,
    "doubles": partial(_broker_does, "doubles"),
    "forgets": partial(_broker_does, "forgets"),
    "reorders": partial(_broker_does, "reorders"),
    "receipts_lost": partial(_broker_does, "loses_receipts"),
    "old_receipts": _old_receipts,
    "session_killed": _session_killed,
    "broker_killed": _broker_killed,
    "board_restarted": _board_restarted,
    "board_away": _board_away,
    "card_slow": _card_slow,
    "card_refuses": _card_refuses,
    "clock_stepped": _clock_stepped,
    "overloaded": _overloaded,
}
