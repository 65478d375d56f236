"""How notification speaks with real carriers, one file each."""
