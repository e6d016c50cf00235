"""The commands: what they are called, what they take, and the one call that each makes."""
