"""One file of a format to a signal in mV with its rate, lead names and metadata."""
