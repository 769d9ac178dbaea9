"""From raw shards to a finished folder of token shards, on many processes, even if some are killed."""
