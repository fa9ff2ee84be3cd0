"""How many workers begin on a cluster whose machines come and go; the cluster is played by a list of what it has from look to look."""
import pytest
from conftest import ROOT

from snnseg import config, ray_cluster
from snnseg.errors import ClusterError, ConfigError, Interrupted
from snnseg.training import places


@pytest.fixture
def found(monkeypatch):
    """found(looks, sets...) begins on a cluster that has `looks[k]` at look k, the last from then on; also what was asked for and said."""
    def of(looks: list[dict], *sets: str, samples: int = 24, lost: bool = False, stop=lambda: False) -> tuple[tuple[int, bool], list, list]:
        asked, said, left = [], [], list(looks)
        monkeypatch.setattr(ray_cluster, "LOOK_S", 0)
        monkeypatch.setattr(ray_cluster, "has", lambda: left.pop(0) if len(left) > 1 else left[0])
        monkeypatch.setattr(ray_cluster, "_ask", asked.append)
        c = config.load(ROOT / "params.yaml", "mnist_cifar/spiking_deeplab", ["train.batch=8", *sets])
        return places.found(c, samples, "auto", stop, said.append, lost), asked, said
    return of


def test_what_is_there_is_taken_at_once(found):
    assert found([{"CPU": 4}], "train.workers=2") == ((2, False), [], [])
    assert found([{"CPU": 4, "GPU": 2}], "train.workers=auto") == ((2, True), [], [])
    assert found([{"CPU": 4, "GPU": 2}], "train.workers=auto", "cluster.gpus_per_worker=0") == ((4, False), [], [])
    assert found([{"CPU": 16}], "train.workers=auto", samples=27)[0] == (3, False), "the last batch of an epoch has 3 pictures"


def test_too_few_are_an_error_at_once_unless_machines_are_waited_for(found):
    with pytest.raises(ClusterError, match="it has 1 processor, train.workers asks for 2. Set train.workers to 1 or less, or add machines"):
        found([{"CPU": 1}], "train.workers=2")
    with pytest.raises(ClusterError, match="it has 0 processors, train.workers asks for one"):
        found([{}], "train.workers=auto")
    with pytest.raises(ConfigError, match="a batch has 8"):
        found([{}], "train.workers=9", "cluster.wait_s=1000")


def test_an_autoscaler_is_asked_and_what_was_asked_is_taken_back(found):
    (workers, on_gpus), asked, said = found([{}, {}, {"CPU": 8, "GPU": 1}, {"CPU": 16, "GPU": 2}], "train.workers=2", "cluster.wait_s=1000")
    assert (workers, on_gpus) == (2, True)
    assert asked == [[{"CPU": 1}] * 2, [{"GPU": 1}] * 2, []], "until a machine with a GPU is seen, nothing tells that there are any"
    assert said == ["the cluster has 0 CPUs of 2; waiting 1000 s at most for machines", "the cluster has 1 GPUs of 2; waiting 1000 s at most for machines"]


def test_a_wait_has_an_end(found, monkeypatch):
    clock = iter(range(0, 100, 4))
    monkeypatch.setattr(ray_cluster.time, "monotonic", lambda: next(clock))
    with pytest.raises(ClusterError, match=r"it has 1 processor after 10 s, train.workers asks for 2\. .*cluster\.wait_s"):
        found([{"CPU": 1}], "train.workers=2", "cluster.wait_s=10")
    assert next(clock) <= 20
    with pytest.raises(Interrupted):
        found([{"CPU": 1}], "train.workers=2", "cluster.wait_s=10", stop=lambda: True)


def test_after_a_loss_those_that_are_left_go_on_where_that_changes_no_number(found):
    (workers, _), _, said = found([{"CPU": 3}], "train.workers=4", lost=True)
    assert workers == 3 and said == ["the cluster is left with 3 processors, so 3 of 4 workers go on"]
    (workers, _), asked, _ = found([{"CPU": 3}, {"CPU": 4}], "train.workers=4", "cluster.wait_s=1000", lost=True)
    assert workers == 4 and asked == [[{"CPU": 1}] * 4, []], "a machine that comes back"
    with pytest.raises(ClusterError, match="train.workers asks for 4"):
        found([{"CPU": 3}], "train.workers=4", "train.sync_norm=local", lost=True)
