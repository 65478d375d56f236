"""Rebuilds what services hold from what they said, and says where the two differ; fills topics again from the logs."""
