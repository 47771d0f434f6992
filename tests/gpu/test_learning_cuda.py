"""Training on CUDA: in bfloat16, and a model that serves on a CPU."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra [worker]")

from tests.unit.learning.conftest import SMALL, shop  # noqa: E402
from workers.learning.artefact import from_artefacts, to_artefacts  # noqa: E402
from workers.learning.fit import fit  # noqa: E402
from workers.learning.serving import ItemServer  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_a_model_of_the_device_foresees_as_well_and_serves_on_a_cpu() -> None:
    data = shop()
    there, here = fit(data, SMALL, device="cuda"), fit(data, SMALL)
    for sort in ("lists", "turns"):
        assert there.metrics[sort]["ndcg_at_10"] > 0.8 * here.metrics[sort]["ndcg_at_10"]
    served = ItemServer(from_artefacts(to_artefacts(there)))
    vectors = served.derive(data.items, data.content, np.zeros((len(data.items), 0), dtype=np.int64), None)
    assert np.isfinite(vectors.embeddings).all()
