"""The fee of an approved candidate: owed, ordered, paid at a gateway, or forfeited when the window closes."""
