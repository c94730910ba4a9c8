"""INT8 quantization, closed-loop judgement and hardware-in-the-loop acceptance of Deep Sets policies."""

__version__ = "0.1.0"
