"""What administrators do: format, fsck, status, summary. Each module is one verb on an open volume or a META-URL."""
