"""What carries requests between the kernel and `fscore.mount.operations`."""
