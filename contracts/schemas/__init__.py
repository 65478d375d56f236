"""The events as committed JSON Schema, and the promise that none of them changes incompatibly."""
