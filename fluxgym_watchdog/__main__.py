"""`python -m fluxgym_watchdog`."""

import sys

from fluxgym_watchdog.cli import main

sys.exit(main())
