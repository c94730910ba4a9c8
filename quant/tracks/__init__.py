"""Ways from a float policy to two INT8 models that compete on equal terms."""
