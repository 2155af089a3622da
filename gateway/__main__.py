"""``python -m gateway`` is ``dripwatch``."""

import sys

from gateway.cli import main

sys.exit(main())
