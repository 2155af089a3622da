"""infupy reading a pump, as a process of its own: its threads outlive the port and are not ours to end.

    python infupy_client.py PORT SECONDS (alive | quiet)

With ``quiet`` its keep-alive thread is stopped first: that thread and the reader take each other's replies.
Prints a JSON line for each value: the request and what infupy made of the reply; null where it gave up.
"""

import json
import os
import sys
import time

from infupy.backends.alaris import AlarisComm, AlarisSyringe
from infupy.backends.common import CommandError

KEEP_ALIVE_SAYS_ITS_LAST_S = 2.0


def main(port: str, seconds: float, keep_alive: str) -> None:
    syringe = AlarisSyringe(AlarisComm(port))
    if keep_alive == "quiet":
        syringe.stopKeepAlive()
        time.sleep(KEEP_ALIVE_SAYS_ITS_LAST_S)
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        for request, read in (("INF_RATE", syringe.readRate), ("INF_VI", syringe.readVolume)):
            try:
                value = read().decode()
            except CommandError:
                value = None
            print(json.dumps([request, value]), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3])
