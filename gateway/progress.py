"""A bar on standard error for the person who waits; nothing where nobody looks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO, TypeVar

_WIDTH = 30
_Item = TypeVar("_Item")


def with_progress(name: str, items: Iterable[_Item], file: BinaryIO) -> Iterator[_Item]:
    """The same items, which are made while ``file`` is read; on a terminal a bar shows how far that is."""
    if not sys.stderr.isatty():
        yield from items
        return
    seekable = file.seekable()
    size = os.fstat(file.fileno()).st_size if seekable else 0
    for count, item in enumerate(items, start=1):
        yield item
        if size:
            share = min(1.0, file.tell() / size)
            words = f"[{'#' * round(_WIDTH * share):{_WIDTH}}] {share:4.0%}"
        else:
            words = f"{count} blocks"
        sys.stderr.write(f"\r{name}: {words}")
        sys.stderr.flush()
    sys.stderr.write(f"\r{' ' * (len(name) + _WIDTH + 9)}\r")
