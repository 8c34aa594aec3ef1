"""One traversal over many ranks, each of which holds a shard of the pool."""
