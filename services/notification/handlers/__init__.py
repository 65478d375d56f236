"""The use cases: tell what happened, fetch contacts, deliver, take receipts in."""
