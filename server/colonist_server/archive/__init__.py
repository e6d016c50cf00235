"""The archive: a second place for what has ended, beside the store."""
