"""S3 and what speaks it, through obstore. Way in: `store.S3Store`; `endpoint` reads bucket URLs."""
