"""Measuring ourselves against what people would otherwise use: ratios in one run, on real Kafka and real PostgreSQL."""
