"""Until when the certificate holds by which the broker knows this home (mqtt page, ``certificate_expiring``).

The standard library reads this only of the other side's certificates. So the few lines of ASN.1 that lead to
it stand here: RFC 5280, section 4.1, in the DER of X.690.
"""

from __future__ import annotations

import binascii
import re
from datetime import UTC, datetime

from alerts.condition import Verdict

WARN_BEFORE_DAYS = 30
_DAY_MS = 86_400_000

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")
_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0


def not_after_utc_ms(pem: str) -> int:
    """When the first certificate in this text expires. Raises ValueError, a sentence, if there is none."""
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("holds no certificate in PEM form")
    try:
        der = binascii.a2b_base64("".join(found[1].split()), strict_mode=True)
        return _date(*_not_after(der))
    except (ValueError, IndexError) as error:
        raise ValueError("holds a certificate that cannot be read") from error


def _not_after(der: bytes) -> tuple[int, bytes]:
    """Certificate, tbsCertificate, and of it: version, serial number, algorithm, issuer, validity."""
    certificate, _ = _content(der, _SEQUENCE)
    fields, _ = _content(certificate, _SEQUENCE)
    if fields[0] == _VERSION:
        _, _, fields = _element(fields)
    for _ in ("serial number", "algorithm", "issuer"):
        _, _, fields = _element(fields)
    validity, _ = _content(fields, _SEQUENCE)
    _, _, after_not_before = _element(validity)
    tag, content, _ = _element(after_not_before)
    return tag, content


def _content(der: bytes, wanted: int) -> tuple[bytes, bytes]:
    tag, content, rest = _element(der)
    if tag != wanted:
        raise ValueError(f"tag {tag:#x} where {wanted:#x} was expected")
    return content, rest


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """Tag, content and what follows of the first element."""
    tag, length, begin = der[0], der[1], 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(der[2:begin], "big")
    if begin + length > len(der):
        raise ValueError("cut off")
    return tag, der[begin : begin + length], der[begin + length :]


def _date(tag: int, content: bytes) -> int:
    """Section 4.1.2.5: years up to 2049 with two digits, later ones with four; both in UTC, with seconds."""
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        text = f"{'19' if text[:2] >= '50' else '20'}{text}"
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no date")
    moment = datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000


def judged(expires_utc_ms: int | None, utc_ms: int, *, synced: bool) -> tuple[Verdict, str]:
    """Whether the certificate must be renewed, and words for it; ``None``: there is none.

    Its end is a date by nature, so here the wall clock decides: but only while it can be trusted.
    """
    if expires_utc_ms is None:
        return Verdict.ABSENT, ""
    if not synced:
        return Verdict.UNKNOWN, ""
    if expires_utc_ms - utc_ms > WARN_BEFORE_DAYS * _DAY_MS:
        return Verdict.ABSENT, ""
    day = datetime.fromtimestamp(expires_utc_ms / 1000, UTC).date()
    if expires_utc_ms <= utc_ms:
        return Verdict.PRESENT, (
            f"The certificate by which the broker knows this home expired on {day}: renew mqtt.cert_file."
            " The next connection will fail, and nothing reaches the nursing team then."
        )
    return Verdict.PRESENT, (
        f"The certificate by which the broker knows this home expires on {day}: renew mqtt.cert_file before."
        " After that nothing reaches the nursing team."
    )
