"""The language server for `.mlir`: an index of a text that may be broken, what is wrong with it, what to say of it."""
