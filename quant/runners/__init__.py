"""Runners execute a policy or a candidate on a batch of observations: float, TFLM arithmetic, TFLM itself, LiteRT."""
