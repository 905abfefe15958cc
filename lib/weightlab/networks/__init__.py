"""Networks: their architectures, trained checkpoints and layers, a user's own, and what they answer. The face is `models`."""
