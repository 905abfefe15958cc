"""Weight sharing: indices into a codebook of k centroids take the place of the weights. The face is `sharing`."""
