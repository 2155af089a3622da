"""infupy reading Fresenius pumps, as a process of its own: its threads outlive the port, we cannot end them.

    python infupy_fresenius_client.py PORT SECONDS [ADDRESS ...]

With addresses it opens a base and those modules, without any a pump that stands alone. Prints a JSON line for
each value: whose, what was asked, and what infupy made of the reply; null where it gave up. Begins with the
modules that the base says it has.
"""

import json
import os
import sys
import time

from infupy.backends.common import CommandError
from infupy.backends.fresenius import FreseniusBase, FreseniusComm, FreseniusSyringe


def main(port: str, seconds: float, addresses: list[int]) -> None:
    comm = FreseniusComm(port)
    if addresses:
        base = FreseniusBase(comm)
        print(json.dumps([0, "modules", base.listModules()]), flush=True)
        pumps = {address: base.connectSyringe(address) for address in addresses}
    else:
        pumps = {None: FreseniusSyringe(comm)}
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        for address, pump in pumps.items():
            for asked, read in (("LE;d", pump.readRate), ("LE;r", pump.readVolume)):
                try:
                    value = read()
                except CommandError:
                    value = None
                print(json.dumps([address, asked, value]), flush=True)
        time.sleep(0.05)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), [int(address) for address in sys.argv[3:]])
