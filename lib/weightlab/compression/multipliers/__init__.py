"""Convolutions whose products come from tables of approximate 8-bit multipliers."""
