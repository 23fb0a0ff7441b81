"""Packaging of ecgjax; dependency ranges hold for Python 3.11 and later."""

import re
from pathlib import Path

from setuptools import find_packages, setup

INSTALL_REQUIRES = [
    "absl-py>=2.1",
    "array_record>=0.8.1",
    "defusedxml>=0.7.1",
    "etils>=1.9",
    "flax>=0.12.2,<0.14",
    "fsspec>=2024.6",
    "grain>=0.2.15",
    "h5py>=3.11",
    "importlib_resources>=6.4",  # tensorflow-datasets 4.9.10 imports it without declaring it
    "jax>=0.10.1,<0.12",
    "matplotlib>=3.10",
    "ml-collections>=1.0",
    "neurokit2>=0.2.12",
    "numpy>=2.0,<3",
    "optax>=0.2.6",
    "orbax-checkpoint>=0.12.0,<0.14",
    "pandas>=2.2",
    "protobuf>=5",  # tensorflow-datasets' own messages need it
    "pyarrow>=17",
    "pydicom>=3.0,<4",
    "safetensors>=0.5",
    "scikit-learn>=1.6",
    "scipy>=1.14",
    "sierraecg>=0.4,<0.5",  # its XLI decoder is used below its documented functions
    "tensorboardX>=2.6.2",
    "tensorflow-datasets>=4.9.9",
    "threadpoolctl>=3.5",
    "tqdm>=4.66",
    "wfdb>=4.3",
]

EXPORT_REQUIRES = [
    "flatbuffers>=24.3",  # jax.export writes with it without declaring it
    "onnx>=1.19",
]

# `make docs`, the documentation as a site.
DOCS_REQUIRES = [
    "mkdocs>=1.6,<2",
    "mkdocs-material>=9.7,<10",
    "mkdocstrings[python]>=1.0",
]

# Drivers of fsspec for object stores.
BUCKETS_REQUIRES = [
    "gcsfs>=2024.6",
    "s3fs>=2024.6",
]

EXTRAS_REQUIRE = {
    "beam": ["apache-beam>=2.70"],
    "wandb": ["wandb>=0.31"],  # finish_timeout
    "mlflow": ["mlflow-skinny>=2.14"],  # the client alone: the whole of MLflow holds back pandas
    "buckets": BUCKETS_REQUIRES,
    "export": EXPORT_REQUIRES,
    "docs": DOCS_REQUIRES,
    "test": [
        *EXPORT_REQUIRES,
        *DOCS_REQUIRES,
        "gcp-storage-emulator>=2024.8",
        "gcsfs>=2024.6",
        "mypy>=2.4,<2.5",
        "onnxruntime>=1.22",
        "pandas-stubs>=3.1",
        "pytest>=8.3",
        "pytest-xdist>=3.6",
        "ruff>=0.17,<0.18",
        "types-defusedxml>=0.7",
        "types-protobuf>=7.35",
        "types-tqdm>=4.70",
    ],
    # A store of S3 on this machine. It is no part of the test extra, because botocore holds back python-dateutil.
    # Moto's own extra for its server brings sixty packages more.
    "test-s3": ["flask>=3.0", "flask-cors>=5.0", "moto[s3]>=5.1", "s3fs>=2024.6"],
    "torch": ["torch>=2.6"],  # what `ecgjax.benchmark --what=torch` compares with; nothing else imports it
    # JAX's own extras pin the plugins to its version, so that the pins of constraints/ hold for them too.
    "tpu": ["jax[tpu]"],
    "tpu-aot": ["jax[tpu]"],  # XLA's TPU compiler, for dry runs on a machine without TPUs
    "cuda": ["jax[cuda13]"],  # needs a driver of 580 or later
    "cuda12": ["jax[cuda12]"],  # needs a driver of 525 or later
}

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "data_pipelines/version.py").read_text(encoding="utf-8"))[1]

#: Folders of the checkout whose names are too common for an installed package → what they are called there.
RENAMED = {
    "ecgjax_launch": "launch",
    "ecgjax_launch.ablation": "launch/ablation",
    "ecgjax_launch.clusters": "launch/clusters",
    "ecgjax_recipes": "configs",
}

setup(
    name="ecgjax",
    version=VERSION,
    description="Pretraining ECG encoders in JAX: raw recordings to an encoder that makes few labels go further",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=[*find_packages(include=["ecgjax", "ecgjax.*", "data_pipelines", "data_pipelines.*"]), *RENAMED],
    package_dir=RENAMED,
    package_data={"": ["py.typed", "*.css"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={"console_scripts": ["ecgjax = ecgjax_launch.commands:main"]},
)
