"""TensorFlow and PyTorch are not needed, and nothing of ours imports them but copies of encoders to compare with."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

SCRIPT = textwrap.dedent("""
    import importlib, importlib.machinery, pkgutil, sys, tempfile
    from pathlib import Path

    from absl import flags

    # The finder says "not installed": a hook that raises crashes inside etils, a None in sys.modules crashes TFDS.
    find = importlib.machinery.PathFinder.find_spec
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in ("tensorflow", "torch") else find(name, path, target)
    importlib.machinery.PathFinder.find_spec = staticmethod(find_spec)
    for name in ("tensorflow", "torch"):
        assert importlib.util.find_spec(name) is None

    count = 0
    for root in ("ecgjax", "data_pipelines", "configs", "launch"):
        package = importlib.import_module(root)
        for module in pkgutil.walk_packages(package.__path__, root + "."):
            if module.name.startswith("ecgjax.benchmarks.pytorch."):
                continue
            importlib.import_module(module.name)
            count += 1
            # Entry points define their flags when imported, and two of them may use one name.
            for flag in list(flags.FLAGS.flags_by_module_dict().get(module.name, [])):
                delattr(flags.FLAGS, flag.name)

    if __name__ == "__main__":
        import numpy as np
        from data_pipelines.storage.store import open_store
        from tests.support.fixtures import make_simulated_dataset
        dataset = make_simulated_dataset(Path(tempfile.mkdtemp()), num_patients=3, rate=50, seconds=4)
        signals = open_store(dataset.directory).read(np.arange(dataset.index.num_records))
        assert signals.dtype == np.int16 and signals.shape[1:] == (200, 8) and signals.any()
        loaded = [name for name in sys.modules if name.partition(".")[0] in ("tensorflow", "torch")]
        assert not loaded, loaded
        print("modules", count)
""")


@pytest.mark.slow
def test_everything_imports_builds_and_reads_without_tensorflow(tmp_path):
    root = Path(__file__).parents[2]
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=root,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split("modules ")[1]) > 50
