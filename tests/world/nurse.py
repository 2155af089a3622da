"""The nurse in front of the board: answers late or soon, twice, or to what has changed meanwhile."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from alerts import wire

if TYPE_CHECKING:
    from tests.world.world import World

S, MIN, H = 1_000, 60_000, 3_600_000
WATCHES_MS = (2 * MIN, 30 * MIN)
"""How long somebody watches; meanwhile states go out each 10 s (mqtt page, ``watch``), so a world is slow."""
LOOKS_AWAY_MS = (20 * MIN, 3 * H)


class Nurse:
    """Looks at the board now and then. Each answer is given under a name of its own."""

    def __init__(self, world: World, until_ms: int) -> None:
        self._world = world
        self._until_ms = until_ms
        self._chance = random.Random(f"{world.random.random()} nurse")
        self._seen: dict[str, int] = {}
        self._answers = 0
        self._looks_again()
        world.after(H, self._watches)

    def _looks_again(self) -> None:
        self._world.after(round(self._chance.expovariate(1 / (12 * MIN))) + S, self._look)

    def _look(self) -> None:
        chance, world = self._chance, self._world
        self._looks_again()
        for alert in world.board.open():
            what = chance.random()
            if what < 0.45:
                self._answer(alert, alert.rev)
            elif what < 0.55:
                self._answer(alert, alert.rev)
                self._answer(alert, alert.rev)
            elif what < 0.7:
                # What was seen at the last look; it may have changed since.
                self._answer(alert, self._seen.get(alert.alert_id, alert.rev))
            self._seen.setdefault(alert.alert_id, alert.rev)

    def _answer(self, alert: wire.Alert, rev: int) -> None:
        self._answers += 1
        by = f"nurse-{self._answers}"
        self._world.promises.sent_by[by] = (rev, self._world.now_ms)
        self._world.board.acknowledge(alert, by, rev)

    def _watches(self) -> None:
        board = self._world.board
        board.somebody_watches = not board.somebody_watches
        for_ms = WATCHES_MS if board.somebody_watches else LOOKS_AWAY_MS
        self._world.after(round(self._chance.uniform(*for_ms)), self._watches)
