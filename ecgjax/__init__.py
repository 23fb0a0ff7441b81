"""Pretraining ECG encoders in JAX."""

from ecgjax.host_memory import is_command, keep_freed_memory

if is_command():  # Here and not in a command's `main`: by then imports have started threads.
    keep_freed_memory()
