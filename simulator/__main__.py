"""``python -m simulator``: see ``cli.py``."""

import sys

from simulator.cli import main

sys.exit(main())
