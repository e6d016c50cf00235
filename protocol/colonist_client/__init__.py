"""A client of a Colonist server over HTTP."""
