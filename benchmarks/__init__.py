"""What Colonist can do, measured: `python -m benchmarks`. README.md says what and how."""
