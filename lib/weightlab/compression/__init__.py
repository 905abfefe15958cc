"""Methods that make a network smaller; none imports another."""
