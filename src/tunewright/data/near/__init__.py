"""Duplicates and near duplicates among any number of rows, in bounded memory.

`_links.py` answers the questions that `prepare` and `check` ask; `_index.py` is the search behind it.
"""
