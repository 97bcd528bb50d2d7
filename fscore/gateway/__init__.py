"""The S3 edge. Empty until the gateway is built."""
