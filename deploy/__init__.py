"""Where kaowu runs: the local system, its simulators, the rehearsal, and the command line over them."""
