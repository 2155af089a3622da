"""What a prescription may say, what follows from it, and what is refused with which key."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.condition import Priority, Urgency
from gateway.core.order import LONGEST_TEXT_BYTES, OrderError, parse_order

RECORDINGS = Path(__file__).parents[2] / "recordings"
PRESCRIPTIONS = sorted([*RECORDINGS.glob("*/prescription.toml"), *RECORDINGS.glob("orders/*.toml")])

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR

PLAIN = """\
format = "infusion-prescription/1"

[patient]
id = "P-0017"
weight_kg = 70

[drug]
name = "milrinone"
concentration = "0.2 mg/mL"

[schedule]
therapy = "continuous"
start = 2026-03-02T10:00:00+01:00

[[schedule.phase]]
duration = "24h"
volume_ml = 120.0
"""
"""One constant infusion of 5 mL/h. Rows below change it by replacing or adding lines."""

ONCE = "start = 2026-03-02T10:00:00+01:00"
EIGHT_HOURLY = f'{ONCE}\nevery = "8h"\ntimes = 6'
PHASE = 'duration = "24h"\nvolume_ml = 120.0'
SHORT_PHASE = 'duration = "30min"\nvolume_ml = 50.0'
PCA = '[demand]\nbolus_ml = 0.5\nlockout = "8min"'


def text_with(*changes: str | tuple[str, str]) -> str:
    """The plain text with lines replaced, (old, new), or put at the end."""
    text = PLAIN
    for change in changes:
        if isinstance(change, str):
            text += f"\n{change}\n"
        else:
            old, new = change
            assert text.count(old) == 1, f"{old!r} is not there once"
            text = text.replace(old, new)
    return text


def problems_of(text: str) -> dict[str, str]:
    with pytest.raises(OrderError) as caught:
        parse_order(text)
    for problem in caught.value.problems:
        assert problem.key in str(caught.value), "the words name every key"
    return {problem.key: problem.message for problem in caught.value.problems}


# --- what is read ---


@pytest.mark.parametrize("path", PRESCRIPTIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_each_example_is_a_valid_prescription(path):
    prescription = parse_order(path.read_text())
    assert prescription.volume_ml > 0


def test_there_are_twenty_examples():
    assert len(PRESCRIPTIONS) == 20


def test_every_default_of_the_page_is_filled_in():
    order = parse_order(PLAIN)
    assert (order.urgency, order.never_flush) == (Urgency.TIMED, False)
    assert (order.demand, order.titration, order.sensor, order.bag) == (None, None, None, None)
    schedule, limits, pump = order.schedule, order.limits, order.pump
    assert (schedule.times, schedule.as_needed, schedule.between_ml_h) == (1, False, 0)
    assert limits.tolerance == pytest.approx(0.10)
    assert limits.start_window_ms == HOUR
    assert limits.give_within_ms == 25 * HOUR
    assert limits.min_interval_ms == 0
    assert limits.end_window_ms == round(2.4 * HOUR)
    assert limits.late_end_ms is None
    assert (limits.max_pause_ms, limits.max_total_pause_ms) == (15 * MINUTE, None)
    assert (limits.kvo_ml_h, limits.kvo_max_ms) == (0, 30 * MINUTE)
    assert (limits.max_rate_ml_h, limits.max_volume_ml) == (None, None)
    assert limits.no_data_after_ms == 5 * MINUTE
    assert (pump.model, pump.counter_ml, pump.counter_wrap_ml) == (None, 0.1, None)
    assert (pump.stroke_ml, pump.ripple_ml, pump.occlusion_ml, pump.poll_ms) == (0.05, 0, 0.5, 5000)
    assert pump.accuracy == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("urgency", "max_pause", "no_data_after", "high", "medium", "low", "warn_before", "start_window"),
    [
        ("vital", 3, 1, 3, 10, 60, 240, 5),
        ("critical", 10, 2, 5, 15, 60, 120, 60),
        ("timed", 15, 5, 10, 30, 240, 120, 60),
        ("routine", 30, 15, 30, 120, 720, 30, 60),
    ],
)
def test_default_times_go_by_urgency(
    urgency, max_pause, no_data_after, high, medium, low, warn_before, start_window
):
    order = parse_order(text_with(f'[response]\nurgency = "{urgency}"', "[bag]\nvolume_ml = 120"))
    assert order.limits.max_pause_ms == max_pause * MINUTE
    assert order.limits.no_data_after_ms == no_data_after * MINUTE
    assert order.respond_within_ms == {
        Priority.HIGH: high * MINUTE,
        Priority.MEDIUM: medium * MINUTE,
        Priority.LOW: low * MINUTE,
    }
    assert order.bag.warn_before_ms == warn_before * MINUTE
    assert order.limits.start_window_ms == start_window * MINUTE


@pytest.mark.parametrize(
    ("every", "phase_duration", "start_window_ms"),
    [
        ("8h", "30min", HOUR),  # a quarter is 2 h: at most 1 h
        ("2h", "10min", 30 * MINUTE),  # a quarter
        ("16min", "1min", 5 * MINUTE),  # a quarter is 4 min: at least 5 min
        ("8h", "7h", 30 * MINUTE),  # at most half of the gap
        ("24h", "24h", HOUR),  # no gap: how long the change of bag may take
    ],
)
def test_the_default_start_window_goes_by_every_and_by_the_gap(every, phase_duration, start_window_ms):
    schedule = f'{ONCE}\nevery = "{every}"\ntimes = 0'
    order = parse_order(
        text_with((ONCE, schedule), (PHASE, f'duration = "{phase_duration}"\nvolume_ml = 50'))
    )
    assert order.limits.start_window_ms == start_window_ms


@pytest.mark.parametrize(
    ("schedule", "min_interval_ms"),
    [
        (ONCE, 0),
        (EIGHT_HOURLY, 4 * HOUR),
        (f'{ONCE}\nat = ["06:00", "12:00", "20:00"]\nzone = "Europe/Paris"\ntimes = 0', 3 * HOUR),
        (
            f'{ONCE}\nat = ["20:00"]\ndays = ["sat", "sun", "wed"]\nzone = "Europe/Paris"\ntimes = 0',
            12 * HOUR,
        ),
        (f'{ONCE}\nat = ["06:00", "08:00"]\nzone = "Europe/Paris"\ntimes = 1', 0),
    ],
)
def test_the_default_least_interval_is_half_of_the_shortest_distance(schedule, min_interval_ms):
    order = parse_order(text_with((ONCE, schedule), (PHASE, SHORT_PHASE)))
    assert order.limits.min_interval_ms == min_interval_ms


@pytest.mark.parametrize(
    ("phase", "duration_ms", "rate_ml_h", "volume_ml"),
    [
        ('duration = "46h"\nvolume_ml = 115', 46 * HOUR, 2.5, 115),
        ('duration = "15min"\nrate_ml_h = 20.0', 15 * MINUTE, 20, 5),
        ("rate_ml_h = 200\nvolume_ml = 235.0", 70.5 * MINUTE, 200, 235),
        ('duration = "24h"\nrate_ml_h = 0.83\nvolume_ml = 20', DAY, 20 / 24, 20),  # the rate was rounded
    ],
)
def test_the_third_of_duration_rate_and_volume_follows(phase, duration_ms, rate_ml_h, volume_ml):
    order = parse_order(text_with((PHASE, phase)))
    (only,) = order.schedule.phases
    assert only.duration_ms == duration_ms
    assert only.from_ml_h == only.to_ml_h == pytest.approx(rate_ml_h)
    assert order.volume_ml == pytest.approx(volume_ml)


def test_as_needed_is_given_as_often_as_its_limits_allow():
    order = parse_order(text_with((ONCE, f"{ONCE}\nas_needed = true"), '[limits]\nmin_interval = "4h"'))
    assert order.schedule.as_needed
    assert order.schedule.times == 0
    assert order.limits.min_interval_ms == 4 * HOUR


@pytest.mark.parametrize(
    ("changes", "poll_at_most_ms"),
    [
        ([], 5_000),
        (['[pump]\npoll = "0.01s"'], 1_000),
        (['[pump]\npoll = "10s"'], 10_000),
        ([PCA], 2_000),
        ([PCA, '[pump]\npoll = "1s"'], 1_000),
    ],
)
def test_a_pump_is_read_as_often_as_ordered_and_for_boluses_at_least_every_two_seconds(
    changes, poll_at_most_ms
):
    assert parse_order(text_with(*changes)).poll_at_most_ms == poll_at_most_ms


@pytest.mark.parametrize(
    "changes",
    [
        [("weight_kg = 70", "weight_kg = 70.5"), ("0.2 mg/mL", "200 mcg/mL")],
        [("concentration", 'dose_rate = "16.67 mcg/min"\nconcentration')],
        [("concentration", 'dose_rate = "0.238 mcg/kg/min"\nconcentration')],
        [('"0.2 mg/mL"', '"20 unit/mL"\ndose_rate = "100 unit/h"')],
        [('"0.2 mg/mL"', '"1.1 kcal/mL"\ndose_rate = "132 kcal/d"')],
        [(PHASE, f'{PHASE}\n[[schedule.phase]]\nduration = "1h"\nfrom_ml_h = 5\nto_ml_h = 0')],
        [(PHASE, 'duration = "24h"\nrate_ml_h = 0'), PCA],  # boluses only
        [PCA + '\nlimit_ml = 2\nlimit_window = "4h"\nlockout_from = "end"\nbolus_over = "10min"'],
        ["[titration]\nmin_ml_h = 2\nmax_ml_h = 10\nstep_ml_h = 8"],
        ['[sensor]\nkind = "drip"\nresolution_ml = 0.05\nnoise_ml = 0'],
        ['[response]\nrespond_within = { high = "40min" }'],  # exactly four times its default
        ['[limits]\nmax_pause = "1h"\nno_data_after = "20min"'],
        ["[limits]\ntolerance_percent = 5"],
        ["[limits]\nmax_rate_ml_h = 5\nmax_volume_ml = 120"],
        [(PHASE, 'duration = "24h"\nrate_ml_h = 0'), PCA, "[limits]\nmax_volume_ml = 0.5"],
        ["[limits]\ntolerance_percent = 50\n[pump]\naccuracy_percent = 50"],
        [(ONCE, EIGHT_HOURLY), (PHASE, SHORT_PHASE), "[limits]\nmax_volume_ml = 150"],
        [(ONCE, f"{ONCE}\ntimes = 1\nzone = 'Europe/Berlin'")],
    ],
)
def test_it_is_valid_with(changes):
    parse_order(text_with(*changes))


# --- what is refused: a key by itself ---

REFUSED_BY_ITSELF = [
    # unknown keys, with the nearest known
    ('[limits]\nmax_paus = "5min"', "limits.max_paus", "did you mean max_pause?"),
    ("[limts]\nx = 1", "limts", "did you mean limits?"),
    (("weight_kg = 70", "wieght_kg = 70"), "patient.wieght_kg", "did you mean weight_kg?"),
    ((PHASE, f"{PHASE}\nrate = 5"), "schedule.phase[1].rate", "did you mean rate_ml_h?"),
    ((ONCE, f'{ONCE}\nmax_pause = "5min"'), "schedule.max_pause", "it belongs in [limits]"),
    ('[response]\nrespond_within = { hihg = "5min" }', "response.respond_within.hihg", "did you mean high?"),
    # what must be there
    (('format = "infusion-prescription/1"', ""), "format", "is missing"),
    (("prescription/1", "prescription/2"), "format", "'infusion-prescription/2' is not known"),
    (('id = "P-0017"', ""), "patient.id", "is missing"),
    (('name = "milrinone"', ""), "drug.name", "is missing"),
    ((ONCE, ""), "schedule.start", "is missing"),
    ((f"[[schedule.phase]]\n{PHASE}", ""), "schedule.phase", "at least one [[schedule.phase]]"),
    ((f"[[schedule.phase]]\n{PHASE}", "phase = []"), "schedule.phase", "has 0 entries"),
    (("[[schedule.phase]]", "[schedule.phase]"), "schedule.phase", "double brackets, [[schedule.phase]]"),
    ("[bag]", "bag.volume_ml", "is missing"),
    ("[sensor]\nresolution_ml = 1", "sensor.kind", "is missing"),
    ('[sensor]\nkind = "flow"', "sensor.resolution_ml", "is missing"),
    ('[demand]\nlockout = "8min"', "demand.bolus_ml", "is missing"),
    ("[demand]\nbolus_ml = 1", "demand.lockout", "is missing"),
    ("[titration]\nmin_ml_h = 1", "titration.max_ml_h", "is missing"),
    # types
    (('id = "P-0017"', "id = 17"), "patient.id", "must be text in quotes; found 17"),
    (("weight_kg = 70", 'weight_kg = "70"'), "patient.weight_kg", "must be a number, without quotes"),
    (("weight_kg = 70", "weight_kg = true"), "patient.weight_kg", "must be a number"),
    ("[limits]\nmax_pause = 15", "limits.max_pause", "must be a duration in quotes"),
    ('[limits]\nmax_pause = "15"', "limits.max_pause", "'15' is not a duration"),
    ('[limits]\nmax_pause = "15 min"', "limits.max_pause", "is not a duration"),
    ('[limits]\nmax_pause = "15m"', "limits.max_pause", "is not a duration"),
    ('[limits]\nlate_end = "30min1h"', "limits.late_end", "from small to large"),
    ('[limits]\nlate_end = ""', "limits.late_end", "is empty"),
    ('[limits]\nlate_end = "401d"', "limits.late_end", "longer than 400d"),
    ('[response]\nnever_flush = "yes"', "response.never_flush", "must be true or false"),
    ("limits = 5", "schedule.phase[1].limits", "is not known"),  # under the last table, as TOML has it
    ((ONCE, f'{ONCE}\nevery = "8h"\ntimes = 2.5'), "schedule.times", "must be a whole number"),
    ((ONCE, f'{ONCE}\nevery = "8h"\ntimes = -1'), "schedule.times", "between 0 and"),
    ((ONCE, f'{ONCE}\nat = "06:00"\nzone = "UTC"\ntimes = 1'), "schedule.at", "must be a list of texts"),
    # numbers that are none, negative, or 0 where something is meant
    ("[limits]\nmax_rate_ml_h = nan", "limits.max_rate_ml_h", "nan is none"),
    ("[limits]\nmax_rate_ml_h = inf", "limits.max_rate_ml_h", "inf is none"),
    ("[limits]\nkvo_ml_h = -inf", "limits.kvo_ml_h", "-inf is none"),
    ("[limits]\nkvo_ml_h = -0.5", "limits.kvo_ml_h", "must not be negative"),
    ("[limits]\nmax_volume_ml = 0", "limits.max_volume_ml", "must be more than 0"),
    ('[limits]\nmax_pause = "0s"', "limits.max_pause", "must be longer than 0"),
    ((PHASE, 'duration = "24h"\nvolume_ml = 0'), "schedule.phase[1].volume_ml", "must be more than 0"),
    ((PHASE, 'duration = "0h"\nvolume_ml = 10'), "schedule.phase[1].duration", "must be longer than 0"),
    ((PHASE, 'duration = "24h"\nrate_ml_h = -5'), "schedule.phase[1].rate_ml_h", "must not be negative"),
    (
        (PHASE, 'duration = "24h"\nrate_ml_h = 1e300'),
        "schedule.phase[1].rate_ml_h",
        "between 1e-06 and 1e+06",
    ),
    (
        (PHASE, f'duration = "24h"\nrate_ml_h = {10**400}'),
        "schedule.phase[1].rate_ml_h",
        "more than 15 digits",
    ),
    ("[pump]\ncounter_ml = 0", "pump.counter_ml", "must be more than 0"),
    ("[pump]\nstroke_ml = 0.0", "pump.stroke_ml", "must be more than 0"),
    ("[bag]\nvolume_ml = 0", "bag.volume_ml", "must be more than 0"),
    (f"{PCA}\nlimit_ml = 0", "demand.limit_ml", "must be more than 0"),
    ("[titration]\nmin_ml_h = 1\nmax_ml_h = 9\nstep_ml_h = 0", "titration.step_ml_h", "must be more than 0"),
    # ranges of the page
    ("[limits]\ntolerance_percent = 0.9", "limits.tolerance_percent", "between 1 and 50"),
    ("[limits]\ntolerance_percent = 51", "limits.tolerance_percent", "between 1 and 50"),
    ('[limits]\nmax_pause = "61min"', "limits.max_pause", "over four times its default (15min"),
    ('[limits]\nno_data_after = "21min"', "limits.no_data_after", "at most 20min"),
    ('[response]\nrespond_within = { low = "17h" }', "response.respond_within.low", "at most 16h"),
    (
        '[response]\nurgency = "vital"\nrespond_within = { high = "13min" }',
        "response.respond_within.high",
        "over four times its default (3min for this urgency)",
    ),
    # words
    ('[response]\nurgency = "vitl"', "response.urgency", "did you mean vital?"),
    ('[sensor]\nkind = "scale"\nresolution_ml = 1', "sensor.kind", "known are weight, drip, flow"),
    (f'{PCA}\nlockout_from = "begin"', "demand.lockout_from", "known are start, end"),
    (("0.2 mg/mL", "0.2 mg"), "drug.concentration", "amount and unit in one mL"),
    (("0.2 mg/mL", "0 mg/mL"), "drug.concentration", "amount of 0"),
    (("0.2 mg/mL", "0.2 mgg/mL"), "drug.concentration", "did you mean mg?"),
    (("0.2 mg/mL", "20 U/mL"), "drug.concentration", "write unit"),
    (("concentration", 'dose_rate = "5"\nconcentration'), "drug.dose_rate", "is not a dose rate"),
    (("concentration", 'dose_rate = "5 mg/week"\nconcentration'), "drug.dose_rate", "is not a dose rate"),
    # times
    ((ONCE, "start = 2026-03-02T10:00:00"), "schedule.start", "has no UTC offset"),
    ((ONCE, "start = 2026-03-02"), "schedule.start", "not a date with a time"),
    ((ONCE, 'start = "2026-03-02T10:00:00+01:00"'), "schedule.start", "take the quotes away"),
    ((ONCE, "start = 0026-03-02T10:00:00+01:00"), "schedule.start", "2000 to 2199"),
    ((ONCE, f'{ONCE}\nat = ["24:00"]\nzone = "UTC"\ntimes = 1'), "schedule.at", "is not a time of day"),
    ((ONCE, f'{ONCE}\nat = ["6:00"]\nzone = "UTC"\ntimes = 1'), "schedule.at", 'write it like "06:00"'),
    ((ONCE, f'{ONCE}\nat = ["06:00", "06:00"]\nzone = "UTC"\ntimes = 1'), "schedule.at", "twice"),
    ((ONCE, f'{ONCE}\nat = []\nzone = "UTC"\ntimes = 1'), "schedule.at", "has 0 entries"),
    (
        (ONCE, f'{ONCE}\nat = ["06:00"]\ndays = ["monday"]\nzone = "UTC"\ntimes = 1'),
        "schedule.days",
        "mon, tue",
    ),
    ((ONCE, f'{ONCE}\nzone = "Europe/Berln"'), "schedule.zone", "did you mean Europe/Berlin?"),
    ((ONCE, f'{ONCE}\nzone = "berlin"'), "schedule.zone", "did you mean Europe/Berlin?"),
    ((ONCE, f'{ONCE}\nzone = "localtime"'), "schedule.zone", "is not known"),
    ((ONCE, f'{ONCE}\nzone = "../../etc/passwd"'), "schedule.zone", "is not known"),
    # sizes
    (("P-0017", "P" * 65), "patient.id", "at most 64"),
    (("milrinone", "m" * 201), "drug.name", "at most 200"),
    (("P-0017", " "), "patient.id", "is empty"),
    (("milrinone", "mil\\u0007rinone"), "drug.name", "cannot be shown"),
]


@pytest.mark.parametrize(("change", "key", "message"), REFUSED_BY_ITSELF)
def test_a_key_is_refused(change, key, message):
    assert message in problems_of(text_with(change))[key]


# --- what is refused: keys that contradict one another ---

CONTRADICTIONS = [
    # the phases
    (
        [(PHASE, f"{PHASE}\nrate_ml_h = 6")],
        "schedule.phase[1].rate_ml_h",
        "volume_ml in duration makes 5 mL/h",
    ),
    ([(PHASE, 'duration = "24h"')], "schedule.phase[1].rate_ml_h", "needs two of"),
    ([(PHASE, "volume_ml = 5")], "schedule.phase[1].duration", "needs two of"),
    ([(PHASE, "rate_ml_h = 0\nvolume_ml = 5")], "schedule.phase[1].rate_ml_h", "is 0, and volume_ml"),
    ([(PHASE, "rate_ml_h = 0.001\nvolume_ml = 5000")], "schedule.phase[1].rate_ml_h", "5e+06 h"),
    (
        [(PHASE, "rate_ml_h = 1000000\nvolume_ml = 0.000001")],
        "schedule.phase[1].rate_ml_h",
        "possible are 1 ms to 400d",
    ),
    ([(PHASE, 'duration = "1h"\nfrom_ml_h = 0')], "schedule.phase[1].to_ml_h", "all three"),
    ([(PHASE, "from_ml_h = 0\nto_ml_h = 5")], "schedule.phase[1].duration", "all three"),
    (
        [(PHASE, 'duration = "1h"\nfrom_ml_h = 0\nto_ml_h = 5\nrate_ml_h = 5')],
        "schedule.phase[1].rate_ml_h",
        "cannot be in a ramp",
    ),
    ([(PHASE, 'duration = "1h"\nrate_ml_h = 0')], "schedule.phase", "nothing would be given"),
    (
        [(PHASE, f'duration = "1h"\nrate_ml_h = 0\n[[schedule.phase]]\n{PHASE}')],
        "schedule.phase[1].rate_ml_h",
        "a dose begins with delivery",
    ),
    (
        [(PHASE, 'duration = "390d"\nrate_ml_h = 1\n[[schedule.phase]]\nduration = "30d"\nrate_ml_h = 1')],
        "schedule.phase",
        "possible are 400d",
    ),
    # when
    (
        [(ONCE, f'{EIGHT_HOURLY}\nat = ["06:00"]\nzone = "UTC"')],
        "schedule.at",
        "cannot be together with every",
    ),
    ([(ONCE, f'{ONCE}\ndays = ["mon"]')], "schedule.days", "needs at"),
    ([(ONCE, f'{ONCE}\nat = ["06:00"]\ntimes = 2')], "schedule.zone", "times of day need one"),
    ([(ONCE, f'{ONCE}\nevery = "48h"')], "schedule.times", "0: until a new prescription"),
    ([(ONCE, f'{ONCE}\nat = ["06:00"]\nzone = "UTC"')], "schedule.times", "is missing"),
    ([(ONCE, f"{ONCE}\ntimes = 3")], "schedule.times", "neither every nor at says when again"),
    ([(ONCE, f"{ONCE}\ntimes = 0")], "schedule.times", "neither every nor at says when again"),
    ([(ONCE, f"{ONCE}\nas_needed = true")], "limits.min_interval", "is missing"),
    (
        [(ONCE, f"{EIGHT_HOURLY}\nas_needed = true"), (PHASE, SHORT_PHASE), '[limits]\nmin_interval = "4h"'],
        "schedule.every",
        "cannot be together with as_needed",
    ),
    ([(ONCE, EIGHT_HOURLY)], "schedule.every", "its phases take 1d; give more time"),
    (
        [(ONCE, f'{ONCE}\nat = ["06:00", "06:20"]\nzone = "UTC"\ntimes = 0'), (PHASE, SHORT_PHASE)],
        "schedule.at",
        "due 20min after the last",
    ),
    (
        [
            (ONCE, f'{ONCE}\nat = ["02:00", "02:45"]\nzone = "Europe/Berlin"\ntimes = 0'),
            (PHASE, SHORT_PHASE),
        ],
        "schedule.at",
        "at one moment when the clocks in Europe/Berlin go forward",
    ),
    (
        [(ONCE, f'{ONCE}\nevery = "30min"\nzone = "Europe/Berlin"\ntimes = 0'), (PHASE, SHORT_PHASE)],
        "schedule.every",
        "or leave zone out",
    ),
    ([(ONCE, f'{ONCE}\nevery = "0.5s"\ntimes = 0')], "schedule.every", "less than a second"),
    # windows
    (
        [
            (ONCE, EIGHT_HOURLY),
            (PHASE, 'duration = "7h"\nvolume_ml = 50'),
            '[limits]\nstart_window = "31min"',
        ],
        "limits.start_window",
        "between two doses there are only 1h",
    ),
    (
        [(ONCE, EIGHT_HOURLY), (PHASE, SHORT_PHASE), '[limits]\nmin_interval = "9h"'],
        "limits.min_interval",
        "doses are due 8h apart",
    ),
    (
        ['[limits]\nstart_window = "2h"\ngive_within = "1h"'],
        "limits.give_within",
        "shorter than start_window",
    ),
    (['[limits]\nmax_pause = "20min"\nmax_total_pause = "10min"'], "limits.max_total_pause", "for one"),
    (['[limits]\nmax_total_pause = "10min"'], "limits.max_total_pause", "15min that max_pause allows"),
    (['[response]\nurgency = "vital"\n[pump]\npoll = "60s"'], "pump.poll", "would count as silence"),
    (
        ['[response]\nrespond_within = { high = "20min", medium = "10min" }'],
        "response.respond_within.high",
        "longer than medium has (10min)",
    ),
    # accuracy
    (["[limits]\ntolerance_percent = 4"], "limits.tolerance_percent", "accuracy_percent 5"),
    (["[pump]\naccuracy_percent = 12"], "pump.accuracy_percent", "tolerance_percent is 10"),
    (
        ["[limits]\ntolerance_percent = 5\n[pump]\naccuracy_percent = 6"],
        "limits.tolerance_percent",
        "raise the tolerance",
    ),
    # hard limits
    (
        ["[limits]\nmax_rate_ml_h = 4.9"],
        "schedule.phase[1].volume_ml",
        "5 mL/h, above limits.max_rate_ml_h (4.9)",
    ),
    (
        [
            (PHASE, f'{PHASE}\n[[schedule.phase]]\nduration = "1h"\nfrom_ml_h = 5\nto_ml_h = 50'),
            "[limits]\nmax_rate_ml_h = 20",
        ],
        "schedule.phase[2].to_ml_h",
        "makes 50 mL/h",
    ),
    ([f'{PCA}\nbolus_over = "1min"', "[limits]\nmax_rate_ml_h = 20"], "demand.bolus_over", "makes 30 mL/h"),
    (
        ["[titration]\nmin_ml_h = 2\nmax_ml_h = 30", "[limits]\nmax_rate_ml_h = 20"],
        "titration.max_ml_h",
        "30 mL/h",
    ),
    (["[limits]\nmax_rate_ml_h = 4\nkvo_ml_h = 4.5"], "limits.kvo_ml_h", "makes 4.5 mL/h"),
    (["[limits]\nkvo_ml_h = 5"], "limits.kvo_ml_h", "its start could not be seen"),
    (
        [(ONCE, f"{EIGHT_HOURLY}\nbetween_ml_h = 100"), (PHASE, SHORT_PHASE)],
        "schedule.between_ml_h",
        "its start could not be seen",
    ),
    (["[limits]\nmax_volume_ml = 119"], "limits.max_volume_ml", "the phases alone give 120 mL"),
    (
        [(ONCE, EIGHT_HOURLY), (PHASE, SHORT_PHASE), "[limits]\nmax_volume_ml = 149"],
        "limits.max_volume_ml",
        "the phases alone give 150 mL",
    ),
    (
        # the fullest day is the end of the first night and the whole second phase
        [
            (PHASE, 'duration = "12h"\nrate_ml_h = 1\n[[schedule.phase]]\nduration = "20h"\nrate_ml_h = 10'),
            "[limits]\nmax_volume_ml = 203",
        ],
        "limits.max_volume_ml",
        "the phases alone give 204 mL",
    ),
    (
        [(PHASE, 'duration = "24h"\nrate_ml_h = 0'), PCA.replace("0.5", "3"), "[limits]\nmax_volume_ml = 2"],
        "limits.max_volume_ml",
        "less than one bolus",
    ),
    # titration
    (["[titration]\nmin_ml_h = 9\nmax_ml_h = 3"], "titration.min_ml_h", "turn them round"),
    (
        ["[titration]\nmin_ml_h = 6\nmax_ml_h = 9"],
        "schedule.phase[1].volume_ml",
        "outside [titration] (6 to 9)",
    ),
    (
        ["[titration]\nmin_ml_h = 1\nmax_ml_h = 4"],
        "schedule.phase[1].volume_ml",
        "outside [titration] (1 to 4)",
    ),
    (["[titration]\nmin_ml_h = 4\nmax_ml_h = 6\nstep_ml_h = 3"], "titration.step_ml_h", "the whole range"),
    # demand
    ([f"{PCA}\nlimit_ml = 0.4"], "demand.limit_ml", "less than one bolus"),
    ([f'{PCA}\nlimit_window = "1h"'], "demand.limit_window", "nothing is limited"),
    ([f'{PCA}\nbolus_over = "9min"'], "demand.lockout", "one takes 9min"),
    # dose rate
    (
        [("weight_kg = 70", ""), ('"0.2 mg/mL"', '"0.2 mg/mL"\ndose_rate = "0.238 mcg/kg/min"')],
        "drug.dose_rate",
        "patient.weight_kg is not given",
    ),
    (
        [('concentration = "0.2 mg/mL"', 'dose_rate = "1 mg/h"')],
        "drug.dose_rate",
        "without drug.concentration",
    ),
    ([('"0.2 mg/mL"', '"0.2 mg/mL"\ndose_rate = "1.03 mg/h"')], "drug.dose_rate", "makes 5.15 mL/h, but"),
    ([('"0.2 mg/mL"', '"0.2 mg/mL"\ndose_rate = "1 mg/min"')], "drug.dose_rate", "makes 300 mL/h"),
    (
        [('"0.2 mg/mL"', '"20 unit/mL"\ndose_rate = "1 mg/h"')],
        "drug.dose_rate",
        "cannot be compared with unit",
    ),
    (
        [
            ('"0.2 mg/mL"', '"0.2 mg/mL"\ndose_rate = "1 mg/h"'),
            (PHASE, 'duration = "1h"\nfrom_ml_h = 0\nto_ml_h = 9'),
        ],
        "drug.dose_rate",
        "no phase has a constant rate",
    ),
    # counter
    (["[pump]\ncounter_ml = 1\ncounter_wrap_ml = 1"], "pump.counter_wrap_ml", "not more than one count"),
]


@pytest.mark.parametrize(("changes", "key", "message"), CONTRADICTIONS)
def test_a_prescription_that_contradicts_itself_is_refused(changes, key, message):
    assert message in problems_of(text_with(*changes))[key]


def test_the_second_phase_is_number_two():
    text = text_with((PHASE, f'{PHASE}\n[[schedule.phase]]\nduration = "1h"\nrate_ml_h = -1'))
    assert list(problems_of(text)) == ["schedule.phase[2].rate_ml_h"]


def test_all_that_is_wrong_is_said_at_once():
    text = text_with(
        (ONCE, "start = 2026-03-02T10:00:00"),
        ('id = "P-0017"', ""),
        (PHASE, 'duration = "24h"\nvolume_ml = -1'),
        '[limits]\nmax_paus = "5min"\ntolerance_percent = 4\nkvo_ml_h = nan',
        "[titration]\nmin_ml_h = 9\nmax_ml_h = 3",
    )
    assert set(problems_of(text)) == {
        "schedule.start",
        "patient.id",
        "schedule.phase[1].volume_ml",
        "limits.max_paus",
        "limits.tolerance_percent",
        "limits.kvo_ml_h",
        "titration.min_ml_h",
    }


def test_what_only_follows_from_another_fault_is_not_said():
    """Without its rate a phase cannot be above a limit, and a bad window is no window that does not fit."""
    text = text_with((PHASE, 'duration = "24h"\nvolume_ml = "120"'), "[limits]\nmax_rate_ml_h = 0.5")
    assert set(problems_of(text)) == {"schedule.phase[1].volume_ml"}


def test_a_fault_elsewhere_hides_no_contradiction():
    text = text_with(("[drug]", "[d]\nx = 1\n[drug]"), "[limits]\nmax_rate_ml_h = 0.5\nmax_rate = 3")
    assert set(problems_of(text)) == {"d", "limits.max_rate", "schedule.phase[1].volume_ml"}


# --- text that is no prescription at all ---


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        (PLAIN.replace('"P-0017"', '"P-0017'), "line 4", "is not TOML"),
        ("\ufeff" + PLAIN, "file", "begins with a byte order mark; save it as UTF-8 without BOM"),
        ("a = " + "[" * 5000, "file", "nested too deeply"),
        ("a = " + "9" * 5000, "file", "is not TOML"),
        (PLAIN + "#" * LONGEST_TEXT_BYTES, "file", f"at most {LONGEST_TEXT_BYTES} are possible"),
        ("", "format", "is missing"),
        ("patient = 3", "patient", "must be a table, [patient]"),
        (".".join("a" * 4000) + " = 1", "a", "is not known"),
    ],
    ids=["open quote", "byte order mark", "deep", "long number", "large", "empty", "no table", "dotted"],
)
def test_text_that_is_no_prescription_is_refused_with_a_reason(text, key, message):
    assert message in problems_of(text)[key]


@given(st.text(max_size=200))
def test_no_text_raises_anything_but_an_order_error(text):
    with pytest.raises(OrderError):
        parse_order(text)


VALUES = [
    *("nan", "-1", "0", "10", "1e309", "true", '""', '"8h"', "[]", "{}", '["06:00"]', "[[1]]", "[{}]"),
    *("2026-01-01", "2026-01-01T00:00:00Z", "07:00:00", "{ a = { b = 1 } }"),
]
values = st.one_of(
    st.sampled_from(VALUES),
    st.integers().map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)
FULL = text_with(
    (ONCE, EIGHT_HOURLY), (PHASE, SHORT_PHASE), PCA, "[titration]\nmin_ml_h = 2\nmax_ml_h = 200",
    '[limits]\nstart_window = "5min"\nkvo_ml_h = 0.5', "[bag]\nvolume_ml = 500",
    '[sensor]\nkind = "flow"\nresolution_ml = 0.1', "[pump]\ncounter_wrap_ml = 1000",
)  # fmt: skip
LINES = [number for number, line in enumerate(FULL.splitlines()) if " = " in line]


@given(st.sampled_from(LINES), values)
def test_any_value_in_any_place_is_read_or_refused_by_name(line, value):
    lines = FULL.splitlines()
    key = lines[line].split(" = ")[0]
    lines[line] = f"{key} = {value}"
    try:
        prescription = parse_order("\n".join(lines))
    except OrderError as error:
        assert error.problems
        return
    assert prescription.length_ms > 0
    assert prescription.limits.start_window_ms > 0
