"""Remote procedures: a typed table of message, access rule and handler."""
