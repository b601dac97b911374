"""Room 5: measures. Tensors in, tensors out: a measure reads Generations and knows nothing of models, Lightning or W&B."""
