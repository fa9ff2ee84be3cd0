"""The confusion matrix of a set and the scores read from it."""
import numpy as np
import pytest
import torch

from snnseg.evaluation.confusion import VOID, Confusion
from snnseg.evaluation.evaluate import scores


def labels(*rows):
    return np.array(rows, np.uint8)


# rows truth, columns prediction: class 0 is met 3 times and hit twice, 1 once and hit, 2 once and called 0
BY_HAND = Confusion.of(labels([0, 0, 0], [1, 2, 255]), labels([0, 0, 1], [1, 0, 2]), 4)


def test_by_hand():
    assert BY_HAND.matrix.tolist() == [[2, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert BY_HAND.matrix.dtype == np.int64
    assert BY_HAND.pixels == [3, 1, 1, 0]
    # 0: 2 of (3 true + 3 called - 2), 1: 1 of (1 + 2 - 1), 2: 0 of 1; 3 occurs nowhere and does not count
    assert BY_HAND.iou() == [2 / 4, 1 / 2, 0.0, None]
    assert BY_HAND.miou() == pytest.approx((0.5 + 0.5 + 0) / 3)


def test_class_that_only_the_prediction_has_counts_as_zero():
    c = Confusion.of(labels([0, 0, 0, 0]), labels([0, 0, 0, 2]), 3)
    assert c.iou() == [3 / 4, None, 0.0]
    assert c.miou() == pytest.approx(3 / 8)


def test_all_void_and_empty_sets():
    empty = Confusion.empty(3)
    for c in (empty, Confusion.of(labels([VOID, VOID]), labels([0, 1]), 3), Confusion.of(labels([]), labels([]), 3)):
        assert c.matrix.tolist() == [[0] * 3] * 3
        assert c.iou() == [None] * 3 and c.miou() == 0.0 and c.pixels == [0] * 3
        assert np.array_equal((BY_HAND + Confusion.empty(4)).matrix, BY_HAND.matrix)


def test_void_is_dropped_whatever_is_called_there():
    truth = labels([0, 1, VOID, VOID])
    for called in ([0, 1, 0, 1], [0, 1, 1, 0], [0, 1, 7, 255]):
        assert Confusion.of(truth, labels(called), 2).matrix.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(("truth", "called"), [([0, 2], [0, 1]), ([0, 1], [0, 2]), ([0, 254], [0, 1]), ([0, 1], [0, 255])])
def test_strange_labels_are_refused(truth, called):
    with pytest.raises(ValueError, match=r"0\.\.1"):
        Confusion.of(labels(truth), labels(called), 2)


@pytest.mark.parametrize(("truth", "called"), [([-1, 0], [0, 0]), ([0, 0], [0, -1])])
def test_negative_labels_are_refused(truth, called):
    """-1 + 2 classes would otherwise fall into a cell of the matrix."""
    with pytest.raises(ValueError, match=r"0\.\.1"):
        Confusion.of(np.array(truth), np.array(called), 2)


def test_all_background():
    """Every pixel called 0: IoU of 0 is its share, 3 of 5; the other classes of the truth have 0."""
    c = BY_HAND.all_background()
    assert c.matrix.tolist() == [[3, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert c.iou() == [3 / 5, 0.0, 0.0, None]
    assert c.miou() == pytest.approx(0.2)
    assert BY_HAND.matrix[0, 1] == 1        # the former is as it was


def random_set(seed, classes):
    """Labels of which the last class never occurs, with a tenth of void."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes - 1, (3, 17, 13)).astype(np.uint8)
    called = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, classes - 1, truth.shape)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.1] = VOID
    return truth, called


@pytest.mark.parametrize("classes", [2, 3, 11])
def test_against_a_loop(classes):
    truth, called = random_set(classes, classes)
    counted = np.zeros((classes, classes), int)
    sets = {c: [set(), set()] for c in range(classes)}
    for place in np.ndindex(truth.shape):
        if truth[place] != VOID:
            counted[truth[place], called[place]] += 1
            sets[truth[place]][0].add(place)
            sets[called[place]][1].add(place)
    iou = [len(t & p) / len(t | p) if t | p else None for t, p in sets.values()]
    c = Confusion.of(truth, called, classes)
    assert np.array_equal(c.matrix, counted)
    assert c.iou() == pytest.approx(iou) and iou[-1] is None
    assert c.miou() == pytest.approx(sum(iou[:-1]) / (classes - 1))


@pytest.mark.parametrize("classes", [3, 11])
def test_against_torchmetrics(classes):
    from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex  # takes two seconds

    truth, called = random_set(classes, classes)
    t, p = torch.from_numpy(truth).long(), torch.from_numpy(called).long()
    mine = Confusion.of(truth, called, classes)
    assert np.array_equal(mine.matrix, MulticlassConfusionMatrix(classes, ignore_index=VOID)(p, t).numpy())
    each = MulticlassJaccardIndex(classes, average="none", ignore_index=VOID)(p, t).tolist()
    assert mine.iou()[:-1] == pytest.approx(each[:-1])
    macro = MulticlassJaccardIndex(classes, average="macro", ignore_index=VOID)(p, t).item()
    assert mine.miou() == pytest.approx(macro)


def test_parts_are_merged_by_their_counts():
    truth, called = random_set(1, 5)
    whole = Confusion.of(truth, called, 5)
    parts = Confusion.empty(5)
    for t, p in zip(truth, called, strict=True):
        parts += Confusion.of(t, p, 5)
    assert np.array_equal(parts.matrix, whole.matrix)
    # 1 of 2 hit and 6 of 6: the mean of the parts' scores would be 0.75
    uneven = Confusion.of(labels([0, 0]), labels([0, 1]), 2) + Confusion.of(labels([0] * 6), labels([0] * 6), 2)
    assert uneven.iou() == [7 / 8, 0.0]


def test_counts_beyond_32_bits_do_not_overflow():
    many = Confusion(np.diag([2**40, 2**40]).astype(np.int64))
    assert (many + many).pixels == [2**41, 2**41] and many.miou() == 1.0


def test_scores_are_named_and_in_per_cent():
    named = scores(BY_HAND, ["background", "a", "b", "c"])
    assert named == {"test/miou": pytest.approx(100 / 3), "test/iou/background": 50.0, "test/iou/a": 50.0,
                     "test/iou/b": 0.0, "test/iou/c": None}
