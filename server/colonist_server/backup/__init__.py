"""Backup, restore, migration and checks of a store, whichever it is."""
