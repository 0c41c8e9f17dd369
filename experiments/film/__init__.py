"""Films of robots."""
