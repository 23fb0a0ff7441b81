"""XML formats of recorders, a module for each."""
