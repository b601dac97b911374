"""Formulas and statistics on plain tensors and arrays. The modules import nothing else of Afterglow and are usable without it.

pixels: uint8, [0, 1] and [-1, 1]. distances: when an image is a copy. guidance, attention, cross_seed: scores and maps.
features: Frechet distance. localization: maps against regions. roc: detectors. statistics: estimates and their intervals.
survival: times known only to lie in an interval.
"""
