"""Fake quantisation: observers, fake quants, and the settings that say which goes where."""
