"""Deprecated name of `python -m ecgjax.preview_views`, which it runs; the next version removes it."""

import runpy
import sys

if __name__ == "__main__":
    print("python -m ecgjax.augmentations is now called python -m ecgjax.preview_views", file=sys.stderr)
    runpy.run_module("ecgjax.preview_views", run_name="__main__", alter_sys=True)
