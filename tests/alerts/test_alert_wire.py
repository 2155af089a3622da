"""The MQTT page, to the letter: its examples, its topics, and what is refused."""

import hashlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.alert import Acknowledgement, Alert, AlertState, Reason
from alerts.condition import Kind, Priority, Urgency
from alerts.sink import Lane
from alerts.wire import (
    FROM_HOME,
    MAX_MADE_BYTES,
    MAX_READ_BYTES,
    TO_HOME,
    Absence,
    Ack,
    Beat,
    Direction,
    Number,
    Open,
    Order,
    Receipt,
    Resync,
    State,
    Status,
    Telemetry,
    TelemetryPoint,
    Topic,
    UtcTime,
    Void,
    WireError,
    alert_payload,
    decode,
    decode_number,
    digest,
    down,
    encode,
    iso_utc,
    parse_iso_utc,
    parse_topic,
    up,
)
from alerts.wire import Alert as AlertPayload

TIME = "2026-05-04T08:21:40.102Z"
THEN = parse_iso_utc(TIME)

EXAMPLE = """
{"schema": "dripwatch.alert/1", "alert_id": "a-s-19ac-41", "rev": 1, "pump": "p1", "kind": "under_infusion", "code": null,
 "state": "active", "reason": "first", "priority": "medium", "level": 0, "urgency": "timed",
 "time": "2026-05-04T08:21:40.102Z", "since": "2026-05-04T08:12:30.000Z", "raised": "2026-05-04T08:21:40.102Z", "respond_within_s": 1800,
 "clock": "synced", "boot": "b7c1", "store": "s-19ac", "lane": "alerts", "seq": 88213,
 "expected_ml": 13.61, "delivered_ml": 13.30,
 "message": "Under-infusion: 0.31 mL (2.3 %) behind; flow 8.0 instead of 10.0 mL/h for about 9 min.",
 "acknowledged": null}
"""  # noqa: E501

FIRST = Alert(
    alert_id="a-s-19ac-41",
    rev=1,
    pump="p1",
    kind=Kind.UNDER_INFUSION,
    code=None,
    state=AlertState.ACTIVE,
    reason=Reason.FIRST,
    priority=Priority.MEDIUM,
    level=0,
    urgency=Urgency.TIMED,
    time_utc_ms=THEN,
    since_utc_ms=parse_iso_utc("2026-05-04T08:12:30.000Z"),
    raised_utc_ms=THEN,
    respond_within_s=1800,
    expected_ml=13.6100004,
    delivered_ml=13.3,
    message="Under-infusion: 0.31 mL (2.3 %) behind; flow 8.0 instead of 10.0 mL/h for about 9 min.",
)


def payload_of(alert: Alert) -> bytes:
    return alert_payload(alert, clock_synced=True, boot="b7c1", store="s-19ac", seq=88213)


class TestTheAlert:
    def test_is_the_example_of_the_page_in_the_order_of_the_page(self):
        made = json.loads(payload_of(FIRST))
        assert made == json.loads(EXAMPLE)
        assert list(made) == list(json.loads(EXAMPLE))

    def test_after_an_acknowledgement_says_who_when_and_until_when(self):
        acknowledged = msgspec.structs.replace(
            FIRST,
            rev=2,
            state=AlertState.ACKNOWLEDGED,
            reason=Reason.ACKNOWLEDGED,
            time_utc_ms=parse_iso_utc("2026-05-04T08:25:02.400Z"),
            acknowledged=Acknowledgement(
                by="nurse-07",
                at_utc_ms=parse_iso_utc("2026-05-04T08:25:02.400Z"),
                until_utc_ms=parse_iso_utc("2026-05-04T08:55:02.400Z"),
            ),
        )
        after = {
            "rev": 2,
            "state": "acknowledged",
            "reason": "acknowledged",
            "time": "2026-05-04T08:25:02.400Z",
            "acknowledged": {
                "by": "nurse-07",
                "at": "2026-05-04T08:25:02.400Z",
                "until": "2026-05-04T08:55:02.400Z",
            },
        }
        assert json.loads(payload_of(acknowledged)) == json.loads(EXAMPLE) | after

    def test_of_a_kind_reason_and_state_that_nobody_knows_yet_keeps_their_text(self):
        newer = json.loads(EXAMPLE) | {"kind": "leak", "reason": "nudged", "state": "parked", "colour": "red"}
        found = decode(json.dumps(newer).encode(), AlertPayload)
        assert (found.kind, found.reason, found.state) == ("leak", "nudged", "parked")
        assert found.priority == Priority.MEDIUM

    def test_says_when_the_clock_could_not_be_trusted(self):
        made = alert_payload(FIRST, clock_synced=False, boot="b", store="s", seq=1)
        assert json.loads(made)["clock"] == "unsynced"

    def test_with_a_number_that_is_none_says_null(self):
        odd = msgspec.structs.replace(FIRST, expected_ml=float("nan"), delivered_ml=None, since_utc_ms=None)
        made = json.loads(payload_of(odd))
        assert made["expected_ml"] is made["delivered_ml"] is made["since"] is None


# Payloads as somebody else may write them, from the page.
PAGE = {
    Receipt: '{"schema": "dripwatch.receipt/1", "time": "%s", "collector": "main", "store": "s-19ac",'
    ' "alerts": 88213, "telemetry": 5120}',
    Ack: '{"schema": "dripwatch.ack/1", "time": "%s", "id": "i-1", "by": "nurse-07",'
    ' "alert_id": "a-s-19ac-41", "rev": 1, "role": "nurse"}',
    Absence: '{"schema": "dripwatch.absence/1", "time": "%s", "id": "i-2", "by": "nurse-07",'
    ' "what": "set_change", "for_s": 900, "reason": "new line"}',
    Resync: '{"schema": "dripwatch.resync/1", "time": "%s", "id": "i-3", "by": "board"}',
    Order: '{"schema": "dripwatch.order/1", "time": "%s", "id": "i-4", "by": "pharmacy", "version": 3,'
    ' "prescription": "format = ...", "sha256": "00", "effective": "on_programming",'
    ' "effective_by": "2026-05-04T09:00:00.000Z"}',
    Status: '{"schema": "dripwatch.status/1", "time": "%s", "clock": "synced", "boot": "b7c1",'
    ' "online": true, "version": "0.1.0", "pumps": ["p1"], "store": "s-19ac"}',
    Beat: '{"schema": "dripwatch.beat/1", "time": "%s", "clock": "synced", "boot": "b7c1",'
    ' "store": "s-19ac", "open": 1, "digest": "00", "as_of": 8, "lanes": {"alerts": {"oldest": 1, "next": 9},'
    ' "telemetry": {"oldest": 4, "next": 4}}, "pumps": {"p1": {"link": "up", "age_s": 3.2}}}',
    Open: '{"schema": "dripwatch.open/1", "time": "%s", "clock": "synced", "boot": "b7c1",'
    ' "store": "s-19ac", "as_of": 8, "alerts": [["a-s-19ac-41", 1]]}',
    State: '{"schema": "dripwatch.state/1", "time": "%s", "clock": "synced", "boot": "b7c1",'
    ' "state": "running", "verdict": "too_early", "origin": "demo", "driver_status": "experimental",'
    ' "occurrence": {"number": 1, "due": "2026-05-04T08:00:00.000Z"}, "absence": null}',
    Telemetry: '{"schema": "dripwatch.telemetry/1", "time": "%s", "clock": "synced", "boot": "b7c1",'
    ' "store": "s-19ac", "lane": "telemetry", "seq": 4, "historical": false,'
    ' "points": [["2026-05-04T08:21:40.000Z", 12.5, "running", 10.0, 1.2, 1.25, 1.2, null],'
    ' [null, 13.5, "running", null, null, null, null, null]]}',
    Void: '{"schema": "dripwatch.void/1", "time": "%s", "store": "s-19ac", "lane": "alerts", "seq": 7,'
    ' "reason": "Packet too large"}',
}


@pytest.mark.parametrize("type_", list(PAGE), ids=lambda type_: type_.__name__)
class TestEveryPayload:
    def test_is_read_and_written_alike(self, type_: type[msgspec.Struct]):
        text = (PAGE[type_] % TIME).encode()
        found = decode(text, type_)
        assert found.time == UtcTime(THEN)
        written = json.loads(encode(found))
        assert {key: value for key, value in written.items() if value is not None} == {
            key: value for key, value in json.loads(text).items() if value is not None
        }
        assert decode(encode(found), type_) == found

    def test_is_refused_by_name_when_a_field_is_missing_or_of_another_sort(self, type_: type[msgspec.Struct]):
        whole = json.loads(PAGE[type_] % TIME)
        for key in ("time", "schema"):
            with pytest.raises(WireError, match=key):
                decode(json.dumps({k: v for k, v in whole.items() if k != key}).encode(), type_)
            with pytest.raises(WireError, match=key):
                decode(json.dumps(whole | {key: 17}).encode(), type_)

    def test_of_another_schema_is_refused(self, type_: type[msgspec.Struct]):
        with pytest.raises(WireError, match="schema"):
            decode(json.dumps(json.loads(PAGE[type_] % TIME) | {"schema": "dripwatch.x/1"}).encode(), type_)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"rev": -1}, "rev"),
        ({"rev": 10**30}, "rev"),
        ({"rev": 1.5}, "rev"),
        ({"role": "king"}, "role"),
        ({"id": ""}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-05-04T08:21:40.102"}, "time: .*offset"),
        ({"time": "2026-02-30T08:21:40.102Z"}, "time"),
        ({"time": "0001-01-01T00:00:00+23:59"}, "time"),
    ],
)
def test_an_acknowledgement_that_cannot_be_meant_is_refused_by_field(change: dict[str, object], place: str):
    whole = json.loads(PAGE[Ack] % TIME)
    with pytest.raises(WireError, match=f"^{place}"):
        decode(json.dumps(whole | change).encode(), Ack)


@pytest.mark.parametrize("field", ["schema", "time", "role", "rev", "alert_id", "by", "id"])
def test_why_a_message_is_refused_does_not_repeat_what_was_in_it(field: str):
    whole = json.loads(PAGE[Ack] % TIME)
    with pytest.raises(WireError) as refused:
        decode(json.dumps(whole | {field: "Erika's 'Mustermann'" * 20}).encode(), Ack)
    assert "Mustermann" not in str(refused.value)


@given(st.binary(max_size=200))
def test_bytes_that_nobody_meant_are_refused_and_never_harm(payload: bytes):
    for type_ in {*FROM_HOME.values(), *TO_HOME.values()}:
        with pytest.raises(WireError):
            decode(payload, type_)
    assert decode_number(payload) is None


@pytest.mark.parametrize("payload", [b"[" * 60_000, b'{"a":' * 10_000, b"\xff\xfe", b"null", b"1e999", b""])
def test_deep_broken_and_empty_payloads_are_refused(payload: bytes):
    with pytest.raises(WireError):
        decode(payload, Receipt)


def test_what_is_too_large_is_neither_read_nor_made():
    with pytest.raises(WireError, match="bytes"):
        decode(b" " * (MAX_READ_BYTES + 1), Receipt)
    points = tuple(
        TelemetryPoint(time=UtcTime(THEN), uptime_s=1.0, state="running") for _ in range(MAX_MADE_BYTES // 40)
    )
    with pytest.raises(WireError, match="bytes"):
        encode(msgspec.structs.replace(decode((PAGE[Telemetry] % TIME).encode(), Telemetry), points=points))


def test_a_collector_reads_the_number_of_a_message_whatever_else_is_wrong_with_it():
    text = b'{"schema": 3, "time": [], "store": "s-1", "lane": "alerts", "seq": 5, "x": {}}'
    assert decode_number(text) == Number(store="s-1", lane=Lane.ALERTS, seq=5)
    assert decode_number(b'{"store": "s-1", "lane": "alerts", "seq": 0}') is None
    assert decode_number(b'{"store": "s-1", "lane": "post", "seq": 1}') is None


class TestTopics:
    TABLE = (
        (
            "dripwatch/v1/h-1/up/status",
            up("h-1", "status"),
            Topic(home="h-1", direction=Direction.UP, what="status"),
        ),
        (
            "dripwatch/v1/h-1/up/pump/p1/state",
            up("h-1", "state", pump="p1"),
            Topic(home="h-1", direction=Direction.UP, what="state", pump="p1"),
        ),
        (
            "dripwatch/v1/h-1/up/pump/p1/alert/a-s-19ac-41",
            up("h-1", "alert", pump="p1", alert_id="a-s-19ac-41"),
            Topic(home="h-1", direction=Direction.UP, what="alert", pump="p1", alert_id="a-s-19ac-41"),
        ),
        (
            "dripwatch/v1/h-1/down/order/p1",
            down("h-1", "order", pump="p1"),
            Topic(home="h-1", direction=Direction.DOWN, what="order", pump="p1"),
        ),
        (
            "dripwatch/v1/h-1/down/ack",
            down("h-1", "ack"),
            Topic(home="h-1", direction=Direction.DOWN, what="ack"),
        ),
        (
            "dripwatch/v1/h-1/up/weather",
            up("h-1", "weather"),
            Topic(home="h-1", direction=Direction.UP, what="weather"),
        ),
    )

    @pytest.mark.parametrize(("text", "made", "taken_apart"), TABLE)
    def test_are_made_and_taken_apart_alike(self, text: str, made: str, taken_apart: Topic):
        assert made == text
        assert parse_topic(text) == taken_apart

    @pytest.mark.parametrize(
        "topic",
        [
            "",
            "dripwatch/v1",
            "dripwatch/v2/h-1/up/status",
            "dripwatch/v1/H-1/up/status",
            "dripwatch/v1/h-1/sideways/status",
            "dripwatch/v1/h-1/up/pump/p1/alert",
            "dripwatch/v1/h-1/up/pump/p1/alert/a/b",
            "dripwatch/v1/h-1/up/pump/p_1/state",
            "dripwatch/v1/h-1/up/pump/p1/",
            "dripwatch/v1/h-1/down/order",
            "dripwatch/v1/h-1/down/ack/p1",
            "dripwatch/v1/" + "h" * 33 + "/up/status",
            "dripwatch/v1/h-1/up/pump/p1/alert/a\n",
        ],
    )
    def test_that_are_none_of_ours_are_none(self, topic: str):
        assert parse_topic(topic) is None

    def test_all_of_a_home_is_one_filter(self):
        assert (up("h-1", "#"), down("h-1", "#")) == ("dripwatch/v1/h-1/up/#", "dripwatch/v1/h-1/down/#")


class TestTheDigest:
    def test_of_nothing_is_that_of_the_empty_string(self):
        assert digest([]) == hashlib.sha256(b"").hexdigest()

    def test_is_over_lines_sorted_by_bytes(self):
        expected = hashlib.sha256(b"a-s-10:1\na-s-1:10\na-s-1:9\n").hexdigest()
        assert digest([("a-s-10", 1), ("a-s-1", 9), ("a-s-1", 10)]) == expected


@given(st.integers(min_value=0, max_value=253_402_300_799_999))
def test_a_time_is_written_with_milliseconds_and_read_back(utc_ms: int):
    assert parse_iso_utc(iso_utc(utc_ms)) == utc_ms
    assert len(iso_utc(utc_ms)) == len(TIME)
