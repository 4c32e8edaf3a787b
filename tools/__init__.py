"""The command line: thin programs over the compiler's rooms. No arithmetic of the network and no rewriting lives here."""
