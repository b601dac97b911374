"""Plant images in a training set, train a diffusion model on it, and watch which of them it comes to memorize."""
