"""Both encoders keep every promise that newsfuse asks of an encoder."""

import pytest
from newsfuse_headline import newsfuse_encoders

from newsfuse import Encoder
from newsfuse.testing import check_encoder


@pytest.mark.parametrize("plugin", newsfuse_encoders(), ids=lambda plugin: plugin.name)
def test_contract(plugin: Encoder) -> None:
    check_encoder(plugin)
