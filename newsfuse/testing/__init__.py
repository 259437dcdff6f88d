"""The kit for authors of plugins: each `check_...` puts a plugin to every promise that its kind makes.

A plugin's whole test is `from newsfuse.testing import check_encoder` and `def test_contract(): check_encoder(PLUGIN)`.
`newsfuse check-plugin NAME` does the same at the command line. Nothing of a project is needed, and no test runner.
"""

from newsfuse.testing.contract import ContractError
from newsfuse.testing.kit import check_embedder, check_encoder, check_fusion, check_user_encoder

__all__ = ["ContractError", "check_embedder", "check_encoder", "check_fusion", "check_user_encoder"]
