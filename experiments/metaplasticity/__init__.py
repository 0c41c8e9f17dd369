"""Metaplasticity: binarised networks whose weights remember how sure they are."""
