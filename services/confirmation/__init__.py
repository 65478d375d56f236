"""On-site confirmation at the candidate's desk, then qualification review, level by level."""
