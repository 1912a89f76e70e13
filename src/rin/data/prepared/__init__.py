"""Prepared sets on disk: written, read, and their captions embedded."""
