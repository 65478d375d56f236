"""The outside world on this machine: a WeChat Pay gateway, an SMS carrier and a mailbox.

True to their protocols, and scriptable.
Nothing here shares code with the clients in services/*/adapters: both sides are written from the documents,
so that each checks the other.
"""
