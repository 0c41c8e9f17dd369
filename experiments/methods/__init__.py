"""The methods: their numbers, and the functions that build them."""
