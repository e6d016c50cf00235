"""One command, `colonist`."""
