"""Slowly-changing regression."""
