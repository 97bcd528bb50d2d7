"""A filesystem core and a model repository on it.

The way in is `open_volume`; `fscore.hub` keeps models on a volume.
"""
