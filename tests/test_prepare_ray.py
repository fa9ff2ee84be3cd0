"""Stores made on a Ray cluster: the same bytes as in place, and the same errors."""
import pytest
from test_prepare import SMALL, archives, load

from snnseg import seal
from snnseg.data.prepare import prepare
from snnseg.errors import DataError

pytestmark = pytest.mark.filterwarnings("default")      # ray's own, of many kinds


@pytest.mark.parametrize("benchmark", SMALL)
def test_the_same_bytes(benchmark, tmp_path, ray_cluster):
    calm, c = load(tmp_path / "calm", benchmark, "data.workers=1"), load(tmp_path, benchmark, "cluster.address=local")
    prepare(calm)
    prepare(c)
    assert seal.verify(c.store, "") == seal.verify(calm.store, "")


def test_an_error_on_the_cluster_is_the_error(tmp_path, ray_cluster):
    c = archives(tmp_path, "voc", "cluster.address=local")
    bad = c.raw / "VOCdevkit" / "VOC2012" / "JPEGImages" / "train_00001.jpg"
    bad.write_bytes(b"")
    with pytest.raises(DataError, match="train_00001.jpg"):
        prepare(c)
