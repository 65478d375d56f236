"""Every query of this service, by what it is about: obligations, orders and answers, the ledger, the close."""
