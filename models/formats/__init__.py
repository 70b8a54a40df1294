"""Checkpoint formats beyond Hugging Face folders: one file a reader, a writer or a shared part."""
