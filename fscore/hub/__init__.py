"""Models: named, versioned, deduplicated, split, approved, published. Speaks paths, never inodes."""
