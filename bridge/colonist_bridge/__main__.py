"""`python -m colonist_bridge`."""

import sys

from colonist_bridge.main import main

sys.exit(main())
