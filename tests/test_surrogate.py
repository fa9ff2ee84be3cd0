"""Surrogates: a strict step forward, the closed form of the literature backward."""
import math

import pytest
import torch

from snnseg.spiking.neuron import LIF, run
from snnseg.spiking.surrogate import SURROGATES, Arctan, Rectangle, Sigmoid, Triangle

M = [-30.0, -3.0, -1.5, -1.001, -1.0, -0.999, -0.75, -0.501, -0.5, -0.499, -0.25, -1e-3, 0.0,
     1e-3, 0.1, 0.25, 0.499, 0.5, 0.501, 0.75, 0.999, 1.0, 1.001, 1.5, 3.0, 30.0]


def slope_of_tanh(x):
    return 1 / math.cosh(x) ** 2


CLOSED_FORM = {
    "triangle": lambda m: 1 - abs(m) if -1 < m < 1 else 0,
    "arctan": lambda m: 1 / (1 + math.pi**2 * m**2),
    "sigmoid": lambda m: slope_of_tanh(2 * m),     # sigmoid(4m) = (1 + tanh(2m)) / 2
    "rectangle": lambda m: 1 if -0.5 < m < 0.5 else 0,
}

# an antiderivative of each slope: the smooth step that it is the slope of
SMOOTH_STEP = {
    "triangle": lambda m: 0 if m < -1 else (1 + m) ** 2 / 2 if m < 0 else 1 - (1 - m) ** 2 / 2 if m < 1 else 1,
    "arctan": lambda m: math.atan(math.pi * m) / math.pi,
    "sigmoid": lambda m: (1 + math.tanh(2 * m)) / 2,
    "rectangle": lambda m: min(max(m + 0.5, 0), 1),
}


def gradient(surrogate, m):
    x = torch.tensor(m, dtype=torch.float64, requires_grad=True)
    surrogate(x).sum().backward()
    return x.grad.tolist()


def test_the_tables_here_are_complete():
    assert SURROGATES == {"triangle": Triangle, "arctan": Arctan, "sigmoid": Sigmoid, "rectangle": Rectangle}
    assert CLOSED_FORM.keys() == SMOOTH_STEP.keys() == SURROGATES.keys()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SURROGATES)
def test_forward_is_a_strict_step(name, dtype):
    out = SURROGATES[name](0.3)(torch.tensor(M, dtype=dtype))
    assert out.tolist() == [1 if m > 0 else 0 for m in M]
    assert out.dtype == dtype


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize("name", SURROGATES)
def test_backward_is_the_closed_form(name, scale):
    expected = [scale * CLOSED_FORM[name](m) for m in M]
    assert gradient(SURROGATES[name](scale), M) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("name", SURROGATES)
def test_slope_is_the_derivative_of_a_step_of_height_one(name):
    """By finite differences, away from the kinks."""
    h, m = 1e-5, [-2.3, -0.8, -0.3, -0.1, 0.1, 0.3, 0.8, 2.3]
    rise = [(SMOOTH_STEP[name](x + h) - SMOOTH_STEP[name](x - h)) / (2 * h) for x in m]
    assert gradient(SURROGATES[name](), m) == pytest.approx(rise, abs=1e-8)
    assert SMOOTH_STEP[name](1e9) - SMOOTH_STEP[name](-200) == pytest.approx(1, abs=1e-3)


def test_zero_outside_the_support():
    assert gradient(Triangle(), [-5.0, -1.0, 1.0, 5.0]) == [0, 0, 0, 0]
    assert gradient(Triangle(), [-0.99, 0.99]) == pytest.approx([.01, .01])
    assert gradient(Rectangle(), [-5.0, -0.5, 0.5, 5.0]) == [0, 0, 0, 0]
    assert gradient(Rectangle(), [-0.49, 0.49]) == [1, 1]


def test_incoming_gradient_is_multiplied():
    m = torch.tensor([0.0, 0.25], dtype=torch.float64, requires_grad=True)
    (Triangle(0.3)(m) * torch.tensor([10.0, -2.0])).sum().backward()
    assert m.grad.tolist() == pytest.approx([10 * 0.3, -2 * 0.3 * 0.75])


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("threshold", [0.5, 1.0, 4.0])
def test_of_the_potential_the_slope_is_divided_by_the_threshold(name, threshold):
    """m = u / threshold - 1, so ds/du = slope(m) / threshold; here m = -0.3, 0 and 0.4."""
    m = [-0.3, 0.0, 0.4]
    current = torch.tensor([[threshold * (1 + x) for x in m]], dtype=torch.float64, requires_grad=True)
    run(current, LIF(1.0, threshold, SURROGATES[name]()))[0].sum().backward()
    expected = [CLOSED_FORM[name](x) / threshold for x in m]
    assert current.grad[0].tolist() == pytest.approx(expected, rel=1e-9)
