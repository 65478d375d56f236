"""Plumbing that every service stands on. It passes keys and payloads along and never interprets them."""
