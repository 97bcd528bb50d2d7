"""Records of the tree. Way in: `service.MetaService`. Knows no objects and no bytes of files."""
