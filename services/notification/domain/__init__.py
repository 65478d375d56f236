"""What is told, in which words, when, and what may become of a message. Plain Python: no clock, no database, no carrier."""
