"""What runs between the stubs of a model, call by call."""
