"""Tables of embeddings as `python -m ecgjax.embed` writes them, made of numbers."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DIGEST, OTHER_DIGEST = "a" * 64, "b" * 64
RECIPE = {"recipe": {"name": "plain", "version": 1, "seconds": 10.0}}


def directions(number, *, dim=12, seed=0):
    return np.random.default_rng(seed).standard_normal((number, dim)).astype(np.float32)


def write_embeddings(
    path,
    embeddings,
    *,
    name="mine",
    digest=DIGEST,
    layer="features",
    dimension=None,
    preprocessing=RECIPE,
    simulated=False,
    stated=True,
    digests=None,
    **columns,
):
    """Writes embeddings, `[n, dim]` or a list of rows of which some are None; columns replace and add to the usual."""
    number = len(embeddings)
    if isinstance(embeddings, np.ndarray):
        lists = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), embeddings[0].size)
    else:
        lists = pa.array(embeddings, pa.list_(pa.float32()))
    about = {
        "model": {
            "architecture": "resnet18",
            "weights_digest": digest,
            "layer": layer,
            "dimension": dimension or len(embeddings[0]),
        },
        "preprocessing": preprocessing,
        "input": {"input": name, "recordings": number, "simulated": simulated},
    }
    table = pa.table(
        {
            "record": [f"r{row}" for row in range(number)],
            "patient_id": [f"p{row // 3}" for row in range(number)],
            "embedding": lists,
            "model_digest": pa.array(digests or [digest] * number).dictionary_encode(),
            **columns,
        }
    )
    pq.write_table(table.replace_schema_metadata({"ecgjax": json.dumps(about)} if stated else None), path)
    return path
