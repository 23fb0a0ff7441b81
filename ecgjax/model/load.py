"""Opens an exported model for use."""

from __future__ import annotations

from pathlib import Path

from ecgjax.errors import ConfigError
from ecgjax.export.file_names import CONFIG_FILE, PREPROCESSOR_FILE
from ecgjax.model.applied import Model
from ecgjax.model.description import read_description, read_modules
from ecgjax.model.exported_folder import open_folder
from ecgjax.model.preprocessor import read_preprocessor
from ecgjax.model.reproduced import check_sample


def load(folder: str | Path) -> Model:
    """Returns the model of an exported folder, checked: an encoder, and a head where it answers a question.

    Sizes and digests of the files that are read are compared with those of `config.json`, and once for each folder and
    version of the software the embeddings of its sample, and the answers of a head, are computed and compared. Nothing
    in a folder is executed.

    Args:
        folder: Folder that `python -m ecgjax.export --out=` wrote.

    Raises:
        ConfigError: The path is something else, a file is missing, damaged or of another version, or the sample's
            embeddings or answers are not reproduced.
    """
    files = open_folder(folder)
    description = read_description(files)
    preprocessor = read_preprocessor(files.path / PREPROCESSOR_FILE, files.preprocessor)
    if not description.num_leads == description.settings.num_leads == len(preprocessor.encoder_leads):
        raise ConfigError(
            f"{files.path / CONFIG_FILE}: num_leads={description.num_leads} and "
            f"encoder.num_leads={description.settings.num_leads} do not fit the {len(preprocessor.encoder_leads)} "
            f"encoder_leads of {PREPROCESSOR_FILE}; export the folder again"
        )
    split, head = read_modules(files, description)
    model = Model(files.path, split, head=head, description=description, preprocessor=preprocessor)
    check_sample(files, model)
    return model
