"""Until when a certificate holds, and what is said of it."""

from __future__ import annotations

import queue
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts import wire
from alerts.condition import Verdict
from gateway.certificate import judged, not_after_utc_ms
from gateway.clock import SystemClock
from gateway.inputs import CertificateRead, Tick
from gateway.run import Certificate, Inbox, Threads
from tests.gateway.home import BEGINNING_UTC_MS, Home

# Made by `openssl req -x509 -days 100` and `-days 9000`; its dates by `openssl x509 -enddate`.
UNTIL_2027 = """\
-----BEGIN CERTIFICATE-----
MIIBeDCCAR2gAwIBAgIUa+xgZFayUj8mhGjH5M8Ag/2BTmcwCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGaC03ZjNhMB4XDTI2MTEyNTEzMzUyNVoXDTI3MDMwNTEzMzUy
NVowETEPMA0GA1UEAwwGaC03ZjNhMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
qNZuXGtcj2ga2bX4JR6ANEqJnfSar9W48Pg1NNkR8JrbZthh2HzvgBwox9yomkQb
Z3oZdQl7QN1Ygk3MPtcchqNTMFEwHQYDVR0OBBYEFEXPXOklzY+K9GDzTE+T8G1W
+z0lMB8GA1UdIwQYMBaAFEXPXOklzY+K9GDzTE+T8G1W+z0lMA8GA1UdEwEB/wQF
MAMBAf8wCgYIKoZIzj0EAwIDSQAwRgIhAIpcqSiHQg8khDDnP0ZKmso30Tv/IEYv
NSrUMcCj27kmAiEAyqc49X1KhyW6HgXiQMu/FUyE6gismFxH5vyCCwSNgHQ=
-----END CERTIFICATE-----
"""
UNTIL_2051 = """\
-----BEGIN CERTIFICATE-----
MIIBeTCCAR+gAwIBAgIUDzjohlMMx/zhJN9NWglpSUqMJmowCgYIKoZIzj0EAwIw
ETEPMA0GA1UEAwwGaC03ZjNhMCAXDTI2MTEyNTEzMzgwOFoYDzIwNTEwNzE3MTMz
ODA4WjARMQ8wDQYDVQQDDAZoLTdmM2EwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AASc7ZtS+mdDlenZkNp676LXD0XGWujimzYuEz48XYfSoYo/JlzAWKI/cJ+hdGAZ
pAuoDY0gmuhz7ydKg3hP73y0o1MwUTAdBgNVHQ4EFgQUGKaSpzPGY4YMwD2YN+nn
kbVt3H0wHwYDVR0jBBgwFoAUGKaSpzPGY4YMwD2YN+nnkbVt3H0wDwYDVR0TAQH/
BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiA53a6q+4QVxsx5U3I4KSVWLt7JJlE5
nqbtz6Z9FMJs+QIhAO1EMrEtLpweL4U8GqsLPseRQLWP3WEAC98PDFvWUKi/
-----END CERTIFICATE-----
"""
DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("text", "expires"),
    [
        (UNTIL_2027, "2027-03-05T13:35:25.000Z"),
        (UNTIL_2051, "2051-07-17T13:38:08.000Z"),
        ("Subject: h-7f3a\n" + UNTIL_2027 + UNTIL_2051, "2027-03-05T13:35:25.000Z"),
        (UNTIL_2027.replace("\n", "\r\n"), "2027-03-05T13:35:25.000Z"),
    ],
    ids=["two digits of the year", "four digits", "the first of a chain", "lines of another system"],
)
def test_the_end_of_a_certificate_is_read(text: str, expires: str) -> None:
    assert wire.iso_utc(not_after_utc_ms(text)) == expires


@pytest.mark.parametrize(
    "text",
    ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", UNTIL_2027.replace("MII", "MIA")],
    ids=["empty", "a key", "broken"],
)
def test_what_holds_no_certificate_is_told_in_words(text: str) -> None:
    with pytest.raises(ValueError, match=r"^holds "):
        not_after_utc_ms(text)


@given(cut=st.integers(0, len(UNTIL_2027)), put=st.text(max_size=3), of=st.integers(0, 5))
def test_no_broken_file_does_more_than_be_refused(cut: int, put: str, of: int) -> None:
    try:
        not_after_utc_ms(UNTIL_2027[:cut] + put + UNTIL_2027[cut + of :])
    except ValueError as error:
        assert str(error).startswith("holds ")


@pytest.mark.parametrize(
    ("left_ms", "synced", "verdict", "words"),
    [
        (31 * DAY_MS, True, Verdict.ABSENT, ""),
        (30 * DAY_MS + 1, True, Verdict.ABSENT, ""),
        (30 * DAY_MS, True, Verdict.PRESENT, "expires on 2026-12-23: renew mqtt.cert_file before."),
        (1, True, Verdict.PRESENT, "expires on 2026-11-23"),
        (0, True, Verdict.PRESENT, "expired on 2026-11-23: renew mqtt.cert_file."),
        (-9 * DAY_MS, True, Verdict.PRESENT, "expired on 2026-11-14"),
        (-9 * DAY_MS, False, Verdict.UNKNOWN, ""),
    ],
)
def test_thirty_days_before_its_end_a_certificate_is_told_of(left_ms, synced, verdict, words) -> None:
    found, said = judged(BEGINNING_UTC_MS + left_ms, BEGINNING_UTC_MS, synced=synced)
    assert found is verdict
    assert words in said if words else not said


def look(home: Home, left_days: float | None, problem: str | None = None) -> None:
    expires_utc_ms = None if left_days is None else round(BEGINNING_UTC_MS + left_days * DAY_MS)
    home.put(CertificateRead, expires_utc_ms=expires_utc_ms, problem=problem)


def test_a_certificate_that_runs_out_is_one_low_alert_until_it_is_renewed_over_restarts_too(tmp_path) -> None:
    home = Home(tmp_path)
    home.connect()
    timetable = [
        ("31 days are left", lambda: look(home, 31), []),
        ("the clock is not set", lambda: setattr(home, "synced", False) or look(home, 3), []),
        (
            "30 days are left",
            lambda: setattr(home, "synced", True) or look(home, 30),
            [(1, "active", "first")],
        ),
        ("an hour later", lambda: look(home, 30), [(1, "active", "first")]),
        ("a restart", lambda: (home.stop(), home.start(), home.connect(), look(home, 29)), None),
        ("it cannot be read", lambda: look(home, None, problem="cannot be read"), None),
        ("it has run out", lambda: look(home, -1), None),
        ("it is renewed", lambda: look(home, 800), [(1, "active", "first"), (2, "closed", "resolved")]),
    ]
    expected: list[tuple[int, str, str]] = []
    for what, happens, told in timetable:
        happens()
        expected = expected if told is None else told
        assert home.told("certificate_expiring") == expected, what
    alert = home.said("alert")[-1]
    assert (alert["pump"], alert["priority"]) == ("gateway", "low")
    assert [note for note in home.notes if "cert_file" in note and "expired on" in note], "said in words"
    assert home.links(), "and the gateway goes on"


def test_a_certificate_that_is_no_longer_named_is_over(tmp_path) -> None:
    home = Home(tmp_path)
    home.connect()
    look(home, 3)
    look(home, None)
    assert home.told("certificate_expiring")[-1] == (2, "closed", "resolved")


def test_the_file_is_looked_at_at_the_start_and_again_and_what_is_wrong_with_it_is_said(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("gateway.run.CERTIFICATE_EVERY_S", 0.01)
    file = tmp_path / "home.pem"
    file.write_text(UNTIL_2027)
    inbox, threads = Inbox(SystemClock()), Threads()
    Certificate(file, inbox, threads).start()

    def seen(expires: str | None, problem: str | None) -> CertificateRead:
        for _ in range(1_000):
            found = inbox.take(1)
            if isinstance(found, Tick):
                continue
            assert isinstance(found, CertificateRead)
            at = found.expires_utc_ms
            if (at and wire.iso_utc(at)[:4]) == expires and (problem or "") in (found.problem or ""):
                return found
        raise queue.Empty

    seen("2027", None)
    file.write_text(UNTIL_2051)
    seen("2051", None)
    file.unlink()
    seen(None, "No such file or directory")
    file.write_text("no certificate")
    seen(None, "holds no certificate in PEM form")
    threads.join(2)


def test_where_no_certificate_is_named_that_is_told_once() -> None:
    inbox = Inbox(SystemClock())
    Certificate(None, inbox, Threads()).start()
    found = inbox.take(0)
    assert isinstance(found, CertificateRead)
    assert (found.expires_utc_ms, found.problem) == (None, None)
