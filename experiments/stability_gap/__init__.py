"""The stability gap: what is forgotten, update by update, when a session begins."""
