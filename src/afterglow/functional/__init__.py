"""Formulas and statistics on plain tensors and arrays. The modules import nothing else of Afterglow and are usable without it.

pixels: conversions between uint8, [0, 1] and [-1, 1]. distances: when an image is a copy. statistics: estimates and their intervals.
"""
