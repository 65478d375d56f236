"""Backup and restore: the databases as they were, and everything since then made up for. See docs/decisions/0015."""
