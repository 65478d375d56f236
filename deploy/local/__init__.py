"""The whole system on this machine: embedded PostgreSQL, a real Kafka, the services and simulators as processes."""
