"""The key-value store under the server: one interface, one law-suite."""
