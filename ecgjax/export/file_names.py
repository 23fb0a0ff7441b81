"""Names of the files of an exported model, and of their format."""

#: Format that `config.json` says.
FORMAT = "ecgjax"

#: Versions of the format that are read: of an encoder alone, which stays as it was, and of one with a head that answers
#: a question. Releases that know no head refuse the second by its version.
FORMAT_VERSION, FORMAT_VERSION_WITH_HEAD = 1, 2

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
CARD_FILE = "README.md"
SAMPLE_FILE = "sample.npz"
WEIGHTS_FILE = "model.safetensors"
ONNX_FILE = "model.onnx"
STABLEHLO_FILE = "model.stablehlo"

#: Forms of an encoder's function that are written where they are asked for.
FUNCTION_FORMATS = ("onnx", "stablehlo")


def format_version(*, has_head: bool) -> int:
    """Returns the version of the format of a folder with or without a head that answers a question."""
    return FORMAT_VERSION_WITH_HEAD if has_head else FORMAT_VERSION
