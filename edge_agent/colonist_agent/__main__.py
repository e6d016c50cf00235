"""`python -m colonist_agent`."""

from __future__ import annotations

import sys

from colonist_agent.main import main

sys.exit(main())
