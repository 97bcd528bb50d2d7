"""What model files say about their tensors, read without executing anything."""
