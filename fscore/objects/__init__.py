"""Keys to bytes in any object storage. Way in: `registry.open_store`. Knows no blocks and no tree."""
