"""Functions that every agent can offer: they read the machine that it runs on."""
