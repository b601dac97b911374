"""Formulas and statistics on plain tensors and arrays; the modules import nothing else of Afterglow and are usable without it."""
