"""What an approved candidate owes, until when, and what becomes of it.

Plain Python: no clock, database or gateway. Whoever asks brings the moment (`at`) and the gateway's word.
"""
