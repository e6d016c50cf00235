"""Keys, records, the view and the hand-over: how nouns live in the store."""
