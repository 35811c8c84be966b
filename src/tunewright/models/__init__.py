"""The only place where weights and tokenizers are loaded, and where messages become tokens."""
