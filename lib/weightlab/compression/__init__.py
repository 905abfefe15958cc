"""Methods that make a network smaller, side by side; none knows another."""
