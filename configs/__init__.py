"""Config files, one for each experiment; `--config=NAME` finds them by name (`ecgjax.config.recipes`)."""
