"""`kaowu evidence` and `kaowu close`: the file that proves one forfeiture, its check without our database, and the dry run."""
