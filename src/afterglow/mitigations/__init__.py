"""Published mitigations, at inference (each changes a SamplingSetup) and during training (each changes the loss)."""
