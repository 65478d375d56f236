"""Tells every candidate what happened and until when to act: once per occasion and channel, and keeps what was said."""
