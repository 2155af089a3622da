"""nesp_lib reading a pump, as a process of its own: it waits for ever for a reply that does not come.

    python nesp_client.py PORT SECONDS (basic | safe)

As it opens, nesp_lib switches Safe mode off, in a Safe packet; with ``safe`` it then switches it on, with a
time-out of 4 s, and keeps the pump alive from a thread. Prints a JSON line for each value: what was read and
what nesp_lib made of the reply; ``null`` where the pump told an alarm instead.
"""

import json
import os
import sys
import time

from nesp_lib import Port, Pump, PumpingDirection
from nesp_lib.exceptions import StatusAlarmException

BAUD = 19_200
SAFE_MODE_TIME_OUT_S = 4


def main(name: str, seconds: float, mode: str) -> None:
    port = Port(name, BAUD)
    pump = Pump(port)
    if mode == "safe":
        # Not as it opens: the alarm of power-up still comes in a Basic reply, and would be read as a packet.
        pump.safe_mode_timeout_s = SAFE_MODE_TIME_OUT_S
    told("model", lambda: pump.model_number)
    told("firmware", lambda: list(pump.firmware_version))
    told("diameter_mm", lambda: pump.syringe_diameter_mm)
    told("direction", lambda: pump.pumping_direction is PumpingDirection.INFUSE)
    told("safe_mode_s", lambda: pump.safe_mode_timeout_s)
    # What would change a real pump; its delivery here is the scenario's.
    told("stopped", lambda: pump.stop(wait_while_running=False))
    told("set", lambda: setattr(pump, "pumping_rate_ml_per_min", 0.5))
    told("cleared", pump.volume_infused_clear)
    told("run", lambda: pump.run(wait_while_running=False))
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        told("status", lambda: pump.status.name)
        told("rate_ml_h", lambda: pump.pumping_rate_ml_per_min * 60)
        told("infused_ml", lambda: pump.volume_infused_ml)
        time.sleep(0.05)
    # Longer than half the time-out: only the heartbeat keeps the pump from its alarm.
    if mode == "safe":
        time.sleep(1.5 * SAFE_MODE_TIME_OUT_S)
        told("status", lambda: pump.status.name)
    told("withdrawn_ml", lambda: pump.volume_withdrawn_ml)
    os._exit(0)


def told(what, read):
    try:
        value = read()
    except StatusAlarmException as alarm:
        value = None
        what = f"{what}: {alarm}"
    print(json.dumps([what, value]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3])
