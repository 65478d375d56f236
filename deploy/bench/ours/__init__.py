"""Our side of each measurement, a program each, built from the chassis as a service builds itself."""
