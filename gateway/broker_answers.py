"""What the broker answers to our messages, in words (MQTT 5 reason codes; mqtt page).

Each thing is said once for a connection, and shown at the gateway for as long as it is so: a message that the
broker does not take, or that nobody subscribes to, is kept, but nobody reads it.
"""

from __future__ import annotations

NO_MATCHING_SUBSCRIBERS = 0x10
NOT_AUTHORISED = 0x87
REFUSED_FROM = 0x80
"""This code and all above: the broker has not taken the message."""
REFUSED_FOR_CONTENT = frozenset({0x90, 0x95, 0x99})
"""Topic name invalid, packet too large, payload format invalid: it will never be taken as it is."""


def is_taken(code: int) -> bool:
    """Whether the broker has the message, and somebody reads such messages."""
    return code < REFUSED_FROM and code != NO_MATCHING_SUBSCRIBERS


def releases(code: int) -> bool:
    """Whether, without a collector, the message need not be kept: it was taken, or never will be."""
    return is_taken(code) or code in REFUSED_FOR_CONTENT


class BrokerAnswers:
    """The newest answer for each kind of message (``Topic.what``) that was not simply taken."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._troubles: dict[str, int] = {}
        self._said: set[tuple[str, int]] = set()

    def connected(self) -> None:
        """A new connection: what was refused on the last one may be allowed now."""
        self._troubles.clear()
        self._said.clear()

    def heard(self, what: str, code: int) -> str | None:
        """The broker's answer to a message of this kind. A sentence for the log if it has not been said."""
        if is_taken(code):
            # What was said only once, as the status at connecting, is over with what was refused likewise.
            over = self._troubles.get(what)
            self._troubles = {kind: code for kind, code in self._troubles.items() if code != over}
            return None
        self._troubles[what] = code
        if (what, code) in self._said:
            return None
        self._said.add((what, code))
        return f"broker: {self._in_words(what, code)}"

    def shown(self) -> str:
        """For the line at the gateway: what is worst, or nothing."""
        worst = max(self._troubles.values(), default=0)
        if NOT_AUTHORISED in self._troubles.values():
            return ", but it does not let us write"
        if worst >= REFUSED_FROM:
            return f", but it refuses messages (code {worst})"
        return ", but nobody subscribes to our messages" if worst else ""

    def _in_words(self, what: str, code: int) -> str:
        if code == NO_MATCHING_SUBSCRIBERS:
            return (
                f"nobody subscribes to {what!r}: start the dashboard, and see that its user may read"
                f" dripwatch/v1/{self._home}/up/#; messages are kept here until somebody has them"
            )
        advice = (
            f"give user {self._home!r} the right to write dripwatch/v1/{self._home}/up/#"
            if code == NOT_AUTHORISED
            else "see the broker's log"
        )
        return f"refuses messages of {what!r} (code {code}): {advice}"
