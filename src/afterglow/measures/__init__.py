"""Measures: functions of Generations, one number or map per sample; they know nothing of models, Lightning or W&B."""
