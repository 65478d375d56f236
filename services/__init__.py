"""The services of an exam cycle, and the chassis they stand on. A folder here is a service if it has app.py."""
