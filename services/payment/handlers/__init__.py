"""The use cases of this stage, by what they are about. Where somebody is forfeited: `closing.py`."""
