"""Bytes to pixels: pictures, of 8 bits and deeper, and clips of videos."""
