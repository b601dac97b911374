"""Room 3: looking inside a network, leaving no trace."""

from afterglow.attention.edit import edit
from afterglow.attention.record import cross_attention_layers, record, self_attention_layers

__all__ = ["cross_attention_layers", "edit", "record", "self_attention_layers"]
