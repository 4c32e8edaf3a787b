"""Settings of quantisation: which dtype and observer each place of a model gets, and which rule said so."""
