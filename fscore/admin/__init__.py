"""What an operator does to a volume: format, fsck, status, summary."""
