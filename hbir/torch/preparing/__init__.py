"""`prepare`: traces a model, fuses, and places fake quantisation."""
