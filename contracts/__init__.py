"""What the services agree on: events, envelope, topics, refusals and the exam cycle.

Knows no service, no broker and no database.
"""
