"""A batch split into shards: which jobs are whose, each shard's share of the limits."""
