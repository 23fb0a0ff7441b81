"""Files of a source: what they hold by their first bytes, their contents, and where they lie."""
