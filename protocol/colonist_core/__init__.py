"""The rules: process states, queue order, matching, leases, access. No I/O."""
