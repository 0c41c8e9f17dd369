"""Slippery Ant: a robot walks on a ground whose friction changes."""
