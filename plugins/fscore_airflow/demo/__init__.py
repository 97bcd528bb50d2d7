"""Models to try the repository with: made checkpoints of many families, and one small real model."""
