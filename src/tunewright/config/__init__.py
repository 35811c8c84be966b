"""Options: what they are (schema.py) and how they are read (load.py)."""
