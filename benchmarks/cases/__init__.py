"""One module a benchmark: `measure(place)` does one run and returns its rows."""
