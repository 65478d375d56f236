"""How payment speaks with real gateways, one file each."""
