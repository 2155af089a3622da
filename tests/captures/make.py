"""Makes the captures of the simulator's stories anew: ``python -m tests.captures.make``.

Beside each capture lies what is read of it, ``NAME.csv``. A change of a driver that reads another thing shows
as a difference there, for a person to judge; so these are made anew only on purpose.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from drivers.capture import Capture, Entry, EntryKind, write_capture
from gateway.decode import decode
from simulator.wire.families import WIRES
from tests.gateway.test_decode import BEGAN, recorded

HERE = Path(__file__).parent
FRAMES = HERE.parent / "frames" / "alaris.toml"
STORIES = ("steady", "occlusion", "stopped")
LASTS_MS = {"sapphire": 40_000}
"""It speaks five times a second: less of it is enough."""
USUALLY_MS = 150_000


def of_story(family: str, story: str) -> Capture:
    """The recording of one story."""
    capture, _ = recorded(story, LASTS_MS.get(family, USUALLY_MS), family_name=family, poll_ms=5_000)
    about = (("pump", f"simulated {family}"), ("done", f"scenario {story}"))
    return Capture(head=(*capture.head, *about), entries=capture.entries)


def of_public_frames() -> Capture:
    """What real Alaris pumps were seen to say, put together to one dialogue; each with where it was seen."""
    frames = {one["id"]: one for one in tomllib.loads(FRAMES.read_text(encoding="utf-8"))["frame"]}
    entries = [Entry(at_ms=0, kind=EntryKind.UP)]
    at_ms = 0
    for identity in ("A1", "A2", "A3", "A4", "A5", "A6", "A13", "A14", "A7", "A8", "A10", "A12"):
        frame = frames[identity]
        is_pump = frame["direction"] == "pump"
        at_ms += 30 if is_pump else 0
        entries.append(Entry(at_ms=at_ms, kind=EntryKind.NOTE, words=frame["evidence"]))
        kind = EntryKind.RX if is_pump else EntryKind.TX
        entries.append(Entry(at_ms=at_ms, kind=kind, data=frame["text"].encode("ascii")))
    about = (("pump", "two Alaris pumps"), ("done", "frames of several sources, put together in this order"))
    return Capture(
        head=(("family", "alaris"), ("date", BEGAN), ("poll", "5s"), *about), entries=tuple(entries)
    )


def write(name: str, family: str, capture: Capture) -> None:
    """A capture, and beside it what is read of it."""
    (HERE / f"{name}.cap").write_text(write_capture(capture), encoding="utf-8")
    (HERE / f"{name}.csv").write_text("".join(decode(family, capture).lines), encoding="utf-8")


def main() -> None:
    """Write all of them."""
    write("alaris-public_frames", "alaris", of_public_frames())
    for family in WIRES:
        for story in STORIES:
            write(f"{family}-{story}", family, of_story(family, story))


if __name__ == "__main__":
    main()
