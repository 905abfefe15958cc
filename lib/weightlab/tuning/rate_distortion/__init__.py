"""Codebooks that weigh distortion against the bits of their labels, at one price of a bit for the whole network."""
