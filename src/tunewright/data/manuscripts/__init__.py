"""Manuscripts: files to text, text to sentences, sentences to chunks of a token window.

`_read.read` gives the text of a file and what was changed in it, `matter.find_matter` the lines that are
not the author's, `cut.sentences` and `cut.chunk` the chunks, `cut.faults` the proof that nothing is lost,
and `statistics.statistics` the figures.
"""
