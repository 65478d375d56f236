"""The rules of pre-registration: plain Python, no database, no clock. Whoever asks brings the moment."""
