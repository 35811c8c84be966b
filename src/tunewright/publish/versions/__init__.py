"""The local store and its versions: `store.py` reads it, `_publish.py` writes a version, the others each do a part."""
