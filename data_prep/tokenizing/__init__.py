"""From a corpus to a finished folder of token shards, on many processes, whatever is killed."""
