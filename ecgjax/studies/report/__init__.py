"""Pages of the studies, with their tables and figures."""
