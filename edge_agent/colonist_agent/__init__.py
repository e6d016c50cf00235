"""The agent for Linux-class devices: pulls processes, runs them, closes them."""
