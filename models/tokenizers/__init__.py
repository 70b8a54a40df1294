"""Holds tokenizers and chat templates, and moves them between the formats that store them."""
