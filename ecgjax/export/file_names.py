"""Names of the files of an exported model, and of their format."""

#: Format that `config.json` says, and its version.
FORMAT, FORMAT_VERSION = "ecgjax", 1

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
CARD_FILE = "README.md"
SAMPLE_FILE = "sample.npz"
WEIGHTS_FILE = "model.safetensors"
ONNX_FILE = "model.onnx"
STABLEHLO_FILE = "model.stablehlo"

#: Forms of an encoder's function that are written where they are asked for.
FUNCTION_FORMATS = ("onnx", "stablehlo")
