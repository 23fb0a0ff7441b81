"""What a model says of the recordings that it was trained on."""

import pytest

from ecgjax.model.told import _dataset


@pytest.mark.parametrize(
    ("licence", "end"), [("not stated", ", licence not stated"), ("ODbL-1.0", ", licence ODbL-1.0"), ("", "")]
)
def test_it_is_the_licence_that_is_or_is_not_stated(licence, end):
    said = {"name": "mine", "records": 48, "patients": 44, "licence": licence}
    assert _dataset(said) == f"mine: 48 records of 44 patients{end}"
