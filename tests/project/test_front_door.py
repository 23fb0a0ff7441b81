"""Which warnings fail a test run: those that our calls earn, not those that a release of another package brings."""

import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("configs", "data_pipelines", "ecgjax", "launch", "tests")
OLD_WAYS = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning", "UserWarning", "ImportWarning")


@pytest.fixture
def run_tests(tmp_path):
    """Runs pytest, under ecgjax's own settings, on a project made of the given files; returns its output and status."""

    def run(files: dict[str, str], *arguments: str) -> tuple[str, int]:
        with (ROOT / "pyproject.toml").open("rb") as file:
            filters = tomllib.load(file)["tool"]["pytest"]["ini_options"]["filterwarnings"]
        settings = f"[tool.pytest.ini_options]\nfilterwarnings = {json.dumps(filters)}\n"
        for name, text in {"pyproject.toml": settings, "tests/__init__.py": "", **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        return done.stdout + done.stderr, done.returncode

    return run


def passes(outcome: tuple[str, int]) -> bool:
    output, status = outcome
    assert status == 0, output
    return "1 passed" in output


def fails(outcome: tuple[str, int], *reasons: str) -> bool:
    """Whether as many tests fail as there are reasons, none passes and every reason is told."""
    output, status = outcome
    assert status == pytest.ExitCode.TESTS_FAILED, output
    assert all(reason in output for reason in reasons), output
    return f"= {len(reasons)} failed in" in output


def test_a_package_that_warns_at_its_import_does_not_fail_the_collection(run_tests):
    warn = "\n".join(f"warnings.warn('an old way', {category})" for category in OLD_WAYS)
    assert passes(
        run_tests(
            {
                "foreign.py": f"import warnings\n{warn}",
                "foreign_too.py": f"import warnings\n{warn}",
                "tests/conftest.py": "import foreign",
                "tests/test_one.py": "import foreign_too\ndef test_one(): pass",
            }
        )
    )


def test_a_package_that_another_one_deprecates_at_import_does_not_fail_the_collection(run_tests):
    # As pandas 3.1 answers wfdb 4.3.1: the warning names the module that called, which is not ours.
    assert passes(
        run_tests(
            {
                "frames.py": """
                    import warnings
                    class FramesNextWarning(DeprecationWarning): pass
                    def set_index(): warnings.warn("inplace is deprecated", FramesNextWarning, stacklevel=2)
                """,
                "waves/__init__.py": "import waves.tables",
                "waves/tables.py": "import frames\nframes.set_index()",
                "tests/conftest.py": "import waves",
                "tests/test_one.py": "def test_one(): pass",
            }
        )
    )


def test_a_package_that_warns_in_its_own_module_when_called_fails_nothing(run_tests):
    assert passes(
        run_tests(
            {
                "foreign.py": """
                    import warnings
                    class VisibleDeprecationWarning(UserWarning): pass
                    def call(): warnings.warn("an old way of mine", VisibleDeprecationWarning)
                """,
                "tests/test_one.py": "import foreign\ndef test_one(): foreign.call()",
            }
        )
    )


def test_a_package_that_imports_its_parts_when_called_may_warn_then(run_tests):
    assert passes(
        run_tests(
            {
                "foreign/__init__.py": "def call():\n    import foreign.part",
                "foreign/part.py": "import warnings\nwarnings.warn('an old way', FutureWarning)",
                "tests/test_one.py": "import foreign\ndef test_one(): foreign.call()",
            }
        )
    )


def test_a_plugin_of_pytest_may_use_what_pytest_deprecates(run_tests):
    assert passes(
        run_tests(
            {
                "plugin.py": """
                    import warnings, pytest
                    warnings.warn("this hook goes", pytest.PytestDeprecationWarning)
                    def pytest_runtest_setup(item): warnings.warn("this too", pytest.PytestDeprecationWarning)
                """,
                "tests/test_one.py": "def test_one(): pass",
            },
            "-p",
            "plugin",
        )
    )


def test_a_package_whose_name_begins_like_one_of_ours_is_not_ours(run_tests):
    assert passes(
        run_tests(
            {
                "launchpad.py": "import warnings\nwarnings.warn('an old way', DeprecationWarning)",
                "tests/test_one.py": "import launchpad\ndef test_one(): pass",
            }
        )
    )


@pytest.mark.parametrize("category", ["DeprecationWarning", "UserWarning"])
def test_a_warning_that_answers_our_call_is_an_error(run_tests, category):
    foreign = f"import warnings\ndef call(name): warnings.warn('call me new, ' + name, {category}, stacklevel=2)"
    callers = {f"{package}/caller.py": "import foreign\ndef call(): foreign.call(__name__)" for package in OURS}
    packages = {f"{package}/__init__.py": "" for package in OURS}
    tests = "\n".join(f"def test_{package}():\n    from {package} import caller\n    caller.call()" for package in OURS)
    outcome = run_tests({"foreign.py": foreign, "tests/test_one.py": tests, **callers, **packages})
    assert fails(outcome, *(f"{category}: call me new, {package}.caller" for package in OURS))


def test_a_deprecated_module_that_we_import_is_an_error(run_tests):
    assert fails(
        run_tests(
            {
                "foreign.py": "import warnings\nwarnings.warn('import modern', DeprecationWarning, stacklevel=2)",
                "tests/test_one.py": "def test_one():\n    import foreign",
            }
        ),
        "DeprecationWarning: import modern",
    )


def one_test_each(imports: str, lines: list[str]) -> dict[str, str]:
    tests = "\n".join(f"def test_{number}():\n    {line}" for number, line in enumerate(lines))
    return {"tests/test_one.py": f"{imports}\n{tests}"}


def test_numbers_that_numpy_warns_of_within_its_own_modules_are_an_error(run_tests):
    lines = ["numpy.mean(numpy.zeros(0))", "numpy.nanmean(numpy.full(3, numpy.nan))", "numpy.zeros(1) / 0"]
    reasons = ("RuntimeWarning: Mean of empty slice",) * 2 + ("RuntimeWarning: invalid value encountered",)
    assert fails(run_tests(one_test_each("import numpy", lines)), *reasons)


def test_a_fit_that_did_not_converge_is_an_error(run_tests):
    # scikit-learn says so in its own module's name.
    imports = "import numpy\nfrom sklearn.linear_model import LogisticRegression"
    fit = "x = numpy.eye(9); LogisticRegression(max_iter=1).fit(x, x[:, 0] + x[:, 1])"
    assert fails(run_tests(one_test_each(imports, [fit])), "failed to converge")


def test_what_jax_warns_of_our_arrays_is_an_error(run_tests):
    lines = [
        "jax.numpy.zeros(3, dtype='float64')",
        "jax.jit(lambda x: x.sum(), donate_argnums=0)(jax.numpy.zeros(3))",
        "jax.numpy.zeros(3, 'int32').at[0].set(jax.numpy.float32(1.5))",
    ]
    reasons = ("Explicitly requested dtype", "Some donated buffers were not usable", "scatter inputs have incompatible")
    assert fails(run_tests(one_test_each("import jax", lines)), *reasons)


def test_an_exception_that_only_pytest_sees_is_an_error(run_tests):
    lines = [
        "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()",
        "type('Thing', (), {'__del__': lambda self: 1 / 0})()",
    ]
    outcome = run_tests(one_test_each("import threading", lines))
    assert fails(outcome, "PytestUnhandledThreadExceptionWarning", "PytestUnraisableExceptionWarning")


def test_packages_that_warn_at_their_import_leave_a_commands_output_alone():
    # Python shows deprecations to developers only; no command turns them on, or prints what imports say.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, "-m", "ecgjax.pretrain", "--help"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert "--config" in done.stdout, done.stderr
    # What a package says in its own name, by its own means, is not ours to stop.
    of_ours = re.compile(rf"{re.escape(str(ROOT))}/(?:{'|'.join(OURS)})/")
    assert not [line for line in done.stderr.splitlines() if of_ours.search(line)]
