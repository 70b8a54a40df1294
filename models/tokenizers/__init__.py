"""Vocabularies: what a tokenizer knows, moved between the file formats that store it."""
